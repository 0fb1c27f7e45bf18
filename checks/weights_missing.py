"""A folder or repository lacks a file that a model needs: weights, configuration, adapter or tokenizer."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class WeightsMissing(Check):
    """A folder or repository lacks a file that a model needs: weights, configuration, adapter or tokenizer.

    ## What it finds

    In a log: weights, config.json, adapter and tokenizer files that are asked for and not there, and
    files in them that the index names.

    ## Why it breaks

    The path points one folder too high or too low, the download was cut short, an adapter is loaded as a
    model or a model as an adapter, the weights are there under another name, or ZeRO-3 saved no weights
    because it was not told to gather them.

    ## How it is proven

    By the log alone.

    ## Fix

    Look at what the folder holds; complete the download, or save the model again with its weights
    gathered.

    ## References

    - https://github.com/huggingface/transformers/blob/v4.45.0/src/transformers/modeling_utils.py
    - https://github.com/fe1ixxu/ALMA/issues/43
    - https://github.com/QwenLM/Qwen3-VL/issues/1514
    - https://huggingface.co/docs/transformers/deepspeed
    """

    name = "weights-missing"
    topic = "model-files"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://huggingface.co/docs/transformers/main_classes/model#transformers.PreTrainedModel.from_pretrained"
    symptoms = (
        Symptom(
            pattern=r"Error no file named (?P<file>[\w.-]{3,60})[\w.,\x20-]{0,120} found in directory"
            r" (?P<folder>[^\s'\"]{1,200})",
            example="OSError: Error no file named pytorch_model.bin, tf_model.h5, model.ckpt.index or"
            " flax_model.msgpack found in"
            " directory /data/output.",
            counter_example="a file named pytorch_model.bin was found",
            cause="There are no weights in {folder}",
            fixes=(
                remedy("look at what is there", "ls -la {folder}"),
                remedy(
                    "if DeepSpeed's ZeRO-3 saved it: gather the weights from its checkpoint",
                    "python zero_to_fp32.py . pytorch_model.bin",
                ),
                remedy(
                    "and have them gathered from now on",
                    '"stage3_gather_16bit_weights_on_model_save": true',
                    "config",
                ),
                remedy(
                    "if only an adapter is there, load it onto its base model",
                    'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "{folder}")',
                    "edit",
                ),
                remedy("if it is a download, complete it", "hf download ORG/MODEL --local-dir {folder}"),
            ),
        ),
        Symptom(
            pattern=r"Error no file named (?P<file>[\w.-]{3,60})",
            example="OSError: Error no file named model.safetensors, or pytorch_model.bin,",
            counter_example="a file named pytorch_model.bin was found",
            cause="The folder that the model is loaded from has no weights under the names that are"
            " looked for ({file})",
        ),
        Symptom(
            pattern=r"does not appear to have (?:a file named|files named) \(?`(?P<file>[\w./-]{3,100})",
            example="OSError: org/model does not appear to have a file named config.json. Checkout"
            " 'https://huggingface.co/org/model/tree/main' for available files.",
            counter_example="the folder has a file named config.json",
            cause="What is loaded has no file {file}",
            fixes=(
                remedy("look at what is there: is the path, or the name, the right one?"),
                remedy(
                    "a folder with adapter_config.json is an adapter: load it onto its base model",
                    "PeftModel.from_pretrained(model, folder)",
                    "edit",
                ),
                remedy("if the download was cut short, complete it", "hf download ORG/MODEL"),
            ),
        ),
        Symptom(
            pattern=r"Can`t load (?P<what>tokenizer|the model|the configuration|config|feature"
            r" extractor|image processor|processor|video processor) (?:for|of)"
            r" `(?P<name>[^\s'\"]{1,160})`",
            example="OSError: Can't load tokenizer for 'org/model'. If you were trying to load it from"
            " 'https://huggingface.co/models', make sure you don't have a local directory with the same"
            " name.",
            counter_example="Can't load the library",
            cause="{name} does not have the files of {what}",
            fixes=(
                remedy(
                    "look at what is there: a folder of that name hides the model of the Hub", "ls -la {name}"
                ),
                remedy(
                    "save the tokenizer along with the model", "tokenizer.save_pretrained(folder)", "edit"
                ),
                remedy("load it from the base model", "AutoTokenizer.from_pretrained(base)", "edit"),
            ),
        ),
        Symptom(
            pattern=r"Can`t load (?:tokenizer|the model|the configuration) (?:for|of)",
            example="OSError: Can't load the configuration of",
            counter_example="Can't load the library",
            cause="What is loaded does not have the files that it should",
        ),
        Symptom(
            pattern=r"Can`t find `(?P<file>adapter_config\.json|config\.json)` at"
            r" `(?P<folder>[^\s'\"]{1,200})",
            example="ValueError: Can't find 'adapter_config.json' at 'output/checkpoint-100'",
            counter_example="adapter_config.json was found",
            cause="{folder} is no adapter: it has no {file}",
            fixes=(
                remedy("look at what is there", "ls -la {folder}"),
                remedy(
                    "if it holds a whole model, load it as one",
                    'AutoModelForCausalLM.from_pretrained("{folder}")',
                    "edit",
                ),
                remedy(
                    "else save the adapter with its configuration", "model.save_pretrained(folder)", "edit"
                ),
            ),
        ),
        Symptom(
            pattern=r"Can`t find `adapter_config\.json|Can`t find config\.json",
            example="ValueError: Can't find 'adapter_config.json' at",
            counter_example="adapter_config.json was found",
            cause="What is loaded as an adapter has no adapter_config.json",
        ),
        Symptom(
            pattern=r"Can`t find weights for (?P<name>[^\s'\"]{1,160}) in|Please check that the file"
            r" adapter_model\.\w{3,11}",
            example="ValueError: Can't find weights for org/lora in org/lora or in the Hugging Face Hub."
            " Please check that the file"
            " adapter_model.bin or adapter_model.safetensors is present at org/lora.",
            counter_example="the weights were found",
            cause="The adapter has a configuration and no weights (adapter_model.safetensors or .bin)",
            fixes=(
                remedy(
                    "save it again; under ZeRO-3 and FSDP with its weights gathered",
                    "trainer.save_model(folder)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"No such file or directory:"
            r" `(?P<file>[^'\"\n]{0,200}(?:pytorch_model[\w.-]{0,24}\.bin|model[\w.-]{0,24}\.safetensors"
            r"|adapter_model\.\w{3,11}"
            r"|adapter_config\.json|config\.json|tokenizer\.(?:model|json)|tokenizer_config\.json"
            r"|\.index\.json|generation_config\.json|consolidated\.\d\d\.pth"
            r"|preprocessor_config\.json|trainer_state\.json|special_tokens_map\.json|vocab\.json"
            r"|merges\.txt|spiece\.model))",
            example="FileNotFoundError: [Errno 2] No such file or directory:"
            " '/data/output/pytorch_model.bin'",
            counter_example="FileNotFoundError: [Errno 2] No such file or directory: '/data/train.jsonl'",
            standing="aftermath",
            cause="{file} is not there",
        ),
        Symptom(
            pattern=r"No such file or directory:"
            r" `(?P<file>[^'\"\n]{0,200}(?:models--[\w.-]{3,100}/(?:snapshots|blobs|refs)/[^'\"\n]{1,120}"
            r"|huggingface/hub/[^'\"\n]{1,160}))",
            example="FileNotFoundError: [Errno 2] No such file or directory:"
            " '/home/me/.cache/huggingface/hub/models--gpt2/snapshots/11c5a3d5/model.safetensors'",
            counter_example="FileNotFoundError: [Errno 2] No such file or directory: '/data/train.jsonl'",
            cause="A file of the cache is gone, or was never complete: {file}",
            fixes=(
                remedy("download it again", "hf download ORG/MODEL --force-download"),
                remedy("let one rank download before the others start"),
            ),
        ),
        Symptom(
            pattern=r"Can`t find a checkpoint index \((?P<file>[\w./-]{3,120})\) in",
            example="ValueError: Can't find a checkpoint index (model.safetensors.index.json) in"
            " /data/model.",
            counter_example="the checkpoint index was read",
            cause="The model's index file is not there: {file}",
        ),
        Symptom(
            pattern=r"Unable to (?:locate the file|load weights from (?:pytorch )?checkpoint file for)"
            r" `(?P<file>[^\s'\"]{1,200})",
            example="OSError: Unable to load weights from pytorch checkpoint file for"
            " '/data/model/pytorch_model.bin' at"
            " '/data/model/pytorch_model.bin'.",
            counter_example="weights were loaded from the checkpoint",
            standing="aftermath",
            sure="likely",
            cause="{file} cannot be read: it is not complete, or not what its name says",
            fixes=(
                remedy("look at its size: a pointer of git-lfs has 130 bytes", "ls -l {file}"),
                remedy("download it again", "hf download ORG/MODEL --force-download"),
            ),
        ),
        Symptom(
            pattern=r"Entry Not Found for url: (?P<url>https?://[^\s]{3,200})",
            example="EntryNotFoundError: 404 Client Error.\n\nEntry Not Found for url:"
            " https://huggingface.co/org/model/resolve/main/pytorch_model.bin.",
            counter_example="Repository Not Found for url: https://huggingface.co/api/models/org/modle.",
            standing="aftermath",
            cause="The repository has no such file: {url}",
        ),
        Symptom(
            pattern=r"Client error `404 Not Found` for url"
            r" `(?P<url>https?://[\w.-]{0,30}(?:huggingface\.co|hf\.co|hf-mirror\.com)/[^\s'\"]{3,200})",
            example="httpx.HTTPStatusError: Client error '404 Not Found' for url"
            " 'https://huggingface.co/org/model/resolve/main/model.safetensors'",
            counter_example="Client error '404 Not Found' for url 'https://example.org/api'",
            standing="aftermath",
            cause="The Hub has no such file or repository: {url}",
        ),
        Symptom(
            pattern=r"EntryNotFoundError: 404 Client Error",
            example="huggingface_hub.utils._errors.EntryNotFoundError: 404 Client Error. (Request ID: 1)",
            counter_example="RepositoryNotFoundError: 404 Client Error.",
            standing="aftermath",
            cause="The repository has no such file",
        ),
        Symptom(
            pattern=r"Cannot find any model weights with|no safetensors weights found|No safetensors"
            r" files? (?:was|were)? ?found",
            example="RuntimeError: Cannot find any model weights with `/data/model`",
            counter_example="model weights were found",
            cause="The folder has no weights that vLLM (or text-generation-inference) can read",
            fixes=(
                remedy(
                    "look at what is there, and complete the download",
                    "hf download ORG/MODEL --local-dir FOLDER",
                ),
            ),
        ),
        Symptom(
            pattern=r"No valid checkpoint found in output directory",
            example="ValueError: No valid checkpoint found in output directory (output)",
            counter_example="resuming from a valid checkpoint",
            cause="There is no checkpoint to resume from",
            fixes=(
                remedy("name one", "--resume_from_checkpoint output/checkpoint-500"),
                remedy("start anew: leave resume_from_checkpoint out"),
            ),
        ),
        Symptom(
            pattern=r"Unrecognized model in (?P<name>[^\s'\"]{1,200})\. Should have a `model_type` key in"
            r" its config\.json",
            example="ValueError: Unrecognized model in /data/model. Should have a `model_type` key in its"
            " config.json, or contain one"
            " of the following strings in its name: albert, bart",
            counter_example="config.json has a model_type key",
            cause="The config.json of {name} does not say which model it is (model_type)",
            fixes=(
                remedy(
                    "take config.json from the original model",
                    "hf download ORG/MODEL config.json --local-dir {name}",
                ),
                remedy(
                    "a folder with adapter_config.json is an adapter: load it onto its base model",
                    "PeftModel.from_pretrained(model, folder)",
                    "edit",
                ),
                remedy(
                    "name the class instead of an Auto class",
                    "LlamaForCausalLM.from_pretrained(folder)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"Should have a `model_type` key in its config\.json",
            example="Should have a `model_type` key in its config.json, or contain one of the following"
            " strings in its name",
            counter_example="config.json has a model_type key",
            cause="The model's config.json does not say which model it is (model_type)",
        ),
        Symptom(
            pattern=r"(?:It looks like the config file at `(?P<file>[^'\"\n]{1,200})`|the config file at"
            r" [^\n]{1,200}) is not a valid JSON file",
            example="OSError: It looks like the config file at '/data/model/config.json' is not a valid"
            " JSON file.",
            counter_example="the config file is valid",
            cause="The model's configuration is not valid JSON: it is cut short, or was edited wrongly",
            fixes=(
                remedy("see where it breaks", "python -m json.tool config.json"),
                remedy("download it again", "hf download ORG/MODEL --force-download"),
            ),
        ),
        Symptom(
            pattern=r"Unrecognized configuration class <class `(?P<config>[\w.]{3,140})`> for this kind"
            r" of AutoModel: (?P<auto>\w{3,60})",
            example="ValueError: Unrecognized configuration class <class"
            " 'transformers.models.t5.configuration_t5.T5Config'> for this"
            " kind of AutoModel: AutoModelForCausalLM.",
            counter_example="AutoModelForCausalLM was used",
            cause="{auto} does not load models with this configuration ({config}): it is of another kind,"
            " or brings its own code",
            fixes=(
                remedy(
                    "use the Auto class of its kind", "AutoModelForSeq2SeqLM.from_pretrained(name)", "edit"
                ),
                remedy("let the model bring its own code", "trust_remote_code=True", "edit"),
                remedy("upgrade: the kind may be newer", "pip install -U transformers"),
            ),
        ),
        Symptom(
            pattern=r"Unrecognized configuration class",
            example="ValueError: Unrecognized configuration class <class",
            counter_example="the configuration class was recognised",
            cause="This Auto class does not load models of this kind",
        ),
        Symptom(
            pattern=r"safetensors archive passed at (?P<file>[^\s]{1,200}) does not contain the valid"
            r" metadata",
            example="OSError: The safetensors archive passed at /data/model.safetensors does not contain"
            " the valid metadata. Make sure"
            " you save your model with the `save_pretrained` method.",
            counter_example="the safetensors archive was read",
            cause="{file} was saved without the metadata that transformers wants",
            fixes=(
                remedy(
                    "save it with them",
                    'safetensors.torch.save_file(tensors, file, metadata={{"format": "pt"}})',
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"safetensors_rust\.SafetensorError: (?:File does not contain tensor|device \w+ is"
            r" invalid)",
            example="safetensors_rust.SafetensorError: File does not contain tensor"
            " model.embed_tokens.weight",
            counter_example="SafetensorError: Error while deserializing header: HeaderTooLarge",
            cause="The file does not have the tensor that is asked of it: index and files are of"
            " different models, or of different"
            " downloads",
        ),
        Symptom(
            pattern=r"Internal: [^\n]{0,120}sentencepiece_processor\.cc[^\n]{0,80}ParseFromArray|could"
            r" not parse ModelProto from",
            example="RuntimeError: Internal: src/sentencepiece_processor.cc(1101)"
            " [model_proto->ParseFromArray(serialized.data(), serialized.size())]",
            counter_example="sentencepiece_processor.cc loaded the model",
            cause="tokenizer.model is not a SentencePiece model: a pointer of git-lfs, cut short, or none"
            " at all (Llama 3 has a"
            " tiktoken file of that name)",
            fixes=(
                remedy("look at its size: a pointer of git-lfs has 130 bytes", "ls -l tokenizer.model"),
                remedy("download it again", "hf download ORG/MODEL tokenizer.model --force-download"),
                remedy("for Llama 3 take the fast tokenizer", "AutoTokenizer.from_pretrained(name)", "edit"),
            ),
        ),
        Symptom(
            pattern=r"sentencepiece_processor\.cc\(\d{2,5}\)"
            r" ?\[?[^\n]{0,40}(?:LoadFromFile|status|model_file_path)|TypeError: not a string[\s\S]{0,40}$",
            example='OSError: Not found: "/data/tokenizer.model": No such file or directory Error'
            " #2\nsentencepiece_processor.cc(1102)"
            " LoadFromFile",
            counter_example="sentencepiece was loaded",
            sure="likely",
            standing="aftermath",
            cause="The tokenizer's SentencePiece file (tokenizer.model) is not there",
        ),
        Symptom(
            pattern=r"Unable to load vocabulary from file\. Please check that the provided vocabulary is",
            example="OSError: Unable to load vocabulary from file. Please check that the provided"
            " vocabulary is accessible and not"
            " corrupted.",
            counter_example="the vocabulary was loaded",
            cause="The tokenizer's vocabulary cannot be read: a file is missing or cut short",
        ),
        Symptom(
            pattern=r"Cannot get 16bit model weights because `stage3_gather_16bit_weights_on_model_save`",
            example="ValueError: Cannot get 16bit model weights because"
            " `stage3_gather_16bit_weights_on_model_save` in DeepSpeed config"
            " is False.",
            counter_example="stage3_gather_16bit_weights_on_model_save: true",
            cause="ZeRO-3 is to save the model, and stage3_gather_16bit_weights_on_model_save is off",
            fixes=(remedy("switch it on", '"stage3_gather_16bit_weights_on_model_save": true', "config"),),
        ),
    )
    remedies = (
        remedy("look at what the folder holds", "ls -la FOLDER"),
        remedy("complete the download", "hf download ORG/MODEL --local-dir FOLDER"),
        remedy(
            "weights that ZeRO-3 saved in parts are put together by",
            "python zero_to_fp32.py . pytorch_model.bin",
        ),
    )
