"""LoRA fine-tuning through Trainer: a script as many write it, with the faults of its year."""

from dataclasses import dataclass, field

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, HfArgumentParser, Trainer, TrainingArguments


@dataclass
class ModelArguments:
    model_name_or_path: str = field(default="meta-llama/Llama-2-7b-hf")
    lora_r: int = field(default=8)


class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        tokens = torch.arange(16) % 100 + index
        return {"input_ids": tokens, "labels": tokens}


def main():
    parser = HfArgumentParser((ModelArguments, TrainingArguments))
    model_args, training_args = parser.parse_args_into_dataclasses()
    model = AutoModelForCausalLM.from_pretrained(model_args.model_name_or_path)
    config = LoraConfig(
        r=model_args.lora_r,
        lora_alpha=16,  # twice the rank
        lora_dropout=0.05,
        target_modules=["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    model.print_trainable_parameters()
    trainer = Trainer(model=model, args=training_args, train_dataset=Tokens())
    trainer.train()


if __name__ == "__main__":
    main()
