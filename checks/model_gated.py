"""A model or data set of the Hub is gated, private or misnamed, and this token may not read it."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy

_ACCESS = (
    remedy("ask for access on its page, if it is gated", "https://huggingface.co/{repo}"),
    remedy("and give the job a token of that account", "hf auth login"),
    remedy("in a container or batch job", "HF_TOKEN=hf_...", "environment"),
)


class ModelGated(Check):
    """A model or data set of the Hub is gated, private or misnamed, and this token may not read it.

    ## What it finds

    In a log: answers 401, 403 and 404 of the Hub, tokens that are not valid, and names that are neither a
    folder nor a repository.

    ## Why it breaks

    Gated models want three things: an account that asked for access and got it, a token of that account,
    and that the token is there in the job's environment (a container or a batch job has none). To who may
    not see it a private repository looks as if it were not there at all; so does a local path that is
    mistyped, which is then taken for a name.

    ## How it is proven

    By the log alone.

    ## Fix

    Ask for access on the model's page, and give the job a token; for a local model check the path.

    ## References

    - https://github.com/huggingface/huggingface_hub/blob/v0.30.0/src/huggingface_hub/utils/_http.py
    - https://github.com/kyegomez/NeoSapiens/issues/3
    - https://huggingface.co/docs/hub/models-gated#access-gated-models-as-a-user
    """

    name = "model-gated"
    topic = "model-files"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://huggingface.co/docs/hub/models-gated"
    symptoms = (
        Symptom(
            pattern=r"Cannot access gated repo for url"
            r" https?://[^/\s]{3,60}/(?:api/models/|api/datasets/"
            r"|datasets/)?(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})",
            example="Cannot access gated repo for url"
            " https://huggingface.co/meta-llama/Llama-2-7b/resolve/main/config.json.",
            counter_example="https://huggingface.co/meta-llama/Llama-2-7b/resolve/main/config.json was read",
            cause="{repo} is gated, and this token may not read it (or there is no token)",
            fixes=(
                remedy(
                    "ask for access on its page, and wait for the answer", "https://huggingface.co/{repo}"
                ),
                remedy("then give the job a token of that account", "hf auth login"),
                remedy("in a container or batch job", "HF_TOKEN=hf_...", "environment"),
            ),
        ),
        Symptom(
            pattern=r"You are trying to access a gated repo",
            example="OSError: You are trying to access a gated repo.",
            counter_example="403 Client Error: you are not in the organisation",
        ),
        Symptom(
            pattern=r"GatedRepoError|Cannot access gated repo|is a gated repo(?:sitory)?|Repo model"
            r" [\w./-]{2,120} is gated",
            example="huggingface_hub.utils._errors.GatedRepoError: 401 Client Error.",
            counter_example="the repository is open",
        ),
        Symptom(
            pattern=r"Access to (?:model|dataset) (?P<repo>[\w./-]{2,120}) is restricted",
            example="Access to model black-forest-labs/FLUX.1-dev is restricted. You must have access to"
            " it and be authenticated to"
            " access it. Please log in.",
            counter_example="Access to the cluster is restricted",
            cause="{repo} is gated, and this token may not read it (or there is no token)",
            fixes=(
                remedy(
                    "ask for access on its page, and wait for the answer", "https://huggingface.co/{repo}"
                ),
                remedy("then give the job a token of that account", "hf auth login"),
                remedy("in a container or batch job", "HF_TOKEN=hf_...", "environment"),
            ),
        ),
        Symptom(
            pattern=r"you are not in the authorized list|Your request to access model [^\n]{1,120} (?:is"
            r" awaiting|has been rejected)",
            example="Access to model google/gemma-7b is restricted and you are not in the authorized"
            " list. Visit"
            " https://huggingface.co/google/gemma-7b to ask for access.",
            counter_example="you are in the list",
            cause="This account has not been given access to the gated model",
        ),
        Symptom(
            pattern=r"Dataset `(?P<repo>[\w./-]{2,120})` is a gated dataset on the Hub",
            example="DatasetNotFoundError: Dataset 'org/data' is a gated dataset on the Hub. You must be"
            " authenticated to access it.",
            counter_example="Dataset 'org/data' is on the Hub",
            cause="The data set {repo} is gated, and this token may not read it (or there is no token)",
        ),
        Symptom(
            pattern=r"Dataset `(?P<repo>[\w./-]{2,120})` (?:doesn`t exist on the Hub|is a private)",
            example="DatasetNotFoundError: Dataset 'org/data' doesn't exist on the Hub or cannot be"
            " accessed.",
            counter_example="Dataset 'org/data' is on the Hub",
            cause="There is no data set {repo} on the Hub that this token may read",
            fixes=(remedy("check its name, and log in if it is private", "hf auth login"),),
        ),
        Symptom(
            pattern=r"(?P<status>401|403) Client Error:? ?(?:Unauthorized|Forbidden)? ?for url:"
            r" https?://(?P<host>[\w.-]{0,30}(?:huggingface\.co|hf\.co|hf-mirror\.com))"
            r"/(?:api/models/|api/datasets/|datasets/)?(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})",
            example="requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url:"
            " https://huggingface.co/meta-llama/Llama-2-7b-chat-hf/resolve/main/tokenizer_config.json",
            counter_example="401 Client Error: Unauthorized for url: https://example.org/api",
            cause="The Hub does not let this job read {repo} ({status}): it is gated or private, and the"
            " token is missing or may not",
            fixes=_ACCESS,
        ),
        Symptom(
            pattern=r"Client error `(?P<status>401 Unauthorized|403 Forbidden)` for url"
            r" `https?://(?P<host>[\w.-]{0,30}(?:huggingface\.co|hf\.co|hf-mirror\.com))"
            r"/(?:api/models/|api/datasets/|datasets/)?(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})",
            example="httpx.HTTPStatusError: Client error '401 Unauthorized' for url"
            " 'https://huggingface.co/meta-llama/Llama-3.1-8B/resolve/main/config.json'",
            counter_example="Client error '401 Unauthorized' for url 'https://example.org/api'",
            cause="The Hub does not let this job read {repo} ({status}): it is gated or private, and the"
            " token is missing or may not",
            fixes=_ACCESS,
        ),
        Symptom(
            pattern=r"Repository Not Found for url:"
            r" https?://[^/\s]{3,60}/(?:api/models/|api/datasets/"
            r"|datasets/)?(?P<repo>[\w.-]{1,96}(?:/[\w.-]{1,96})?)",
            example="Repository Not Found for url: https://huggingface.co/api/models/org/modle.",
            counter_example="Entry Not Found for url: https://huggingface.co/org/model/resolve/main/x.bin.",
            cause="There is no {repo} on the Hub that this token may see: it is misnamed, or private",
            fixes=(
                remedy(
                    "check the name on the Hub (or the path, if it was meant as a folder)",
                    "https://huggingface.co/models",
                ),
                remedy("if it is private, log in", "hf auth login"),
            ),
        ),
        Symptom(
            pattern=r"RepositoryNotFoundError|Repository Not Found for url",
            example="huggingface_hub.utils._errors.RepositoryNotFoundError: 404 Client Error.",
            counter_example="EntryNotFoundError: 404 Client Error.",
            cause="There is no such repository on the Hub that this token may see: it is misnamed, or"
            " private",
            fixes=(
                remedy(
                    "check the name on the Hub (or the path, if it was meant as a folder)",
                    "https://huggingface.co/models",
                ),
                remedy("if it is private, log in", "hf auth login"),
            ),
        ),
        Symptom(
            pattern=r"(?P<name>[^\s'\"]{1,160}) is not a local folder (?:and is not a valid model"
            r" identifier|or a valid repository name)",
            example="OSError: meta-llama/Llama-2-7b is not a local folder and is not a valid model"
            " identifier listed on"
            " 'https://huggingface.co/models'",
            counter_example="./model is a local folder",
            cause="{name} is neither a folder here nor a model of the Hub that this token may see",
            fixes=(
                remedy(
                    "if it is a folder: check the path, from the folder that the job runs in",
                    "ls {name}/config.json",
                ),
                remedy(
                    "if it is a model of the Hub: check its name, and log in if it is private or gated",
                    "hf auth login",
                ),
            ),
        ),
        Symptom(
            pattern=r"is not a local folder and is not a valid model identifier",
            example="is not a local folder and is not a valid model identifier listed on"
            " 'https://huggingface.co/models'",
            counter_example="./model is a local folder",
            cause="The model's name is neither a folder here nor a model of the Hub that this token may see",
        ),
        Symptom(
            pattern=r"Repo id must (?:be in the form|use alphanumeric chars)[^\n]{0,140}:"
            r" `(?P<name>[^\s'\"]{1,160})`",
            example="HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name':"
            " '/data/models/llama'. Use"
            " `repo_type` argument if needed.",
            counter_example="Repo id: gpt2",
            cause="A path is taken for a name of the Hub because there is no such folder: {name}",
            fixes=(remedy("check the path (absolute, on this node, in this container)", "ls -l {name}"),),
        ),
        Symptom(
            pattern=r"Repo id must (?:be in the form|use alphanumeric|be a string)|Cannot have -- or \.\."
            r" in repo_id",
            example="HFValidationError: Repo id must use alphanumeric chars, '-', '_' or '.'.",
            counter_example="Repo id: gpt2",
            cause="A path is taken for a name of the Hub because there is no such folder",
            fixes=(remedy("check the path (absolute, on this node, in this container)"),),
        ),
        Symptom(
            pattern=r"Invalid (?:user )?token(?:\.| passed!| or)|Invalid credentials in Authorization"
            r" header|Token is not valid|User Access Token `[^\n]{1,60}` is expired",
            example="ValueError: Invalid token passed!",
            counter_example="the token is valid",
            sure="likely",
            cause="The token that the Hub is given is not valid (any more)",
            fixes=(
                remedy(
                    "make a new one at https://huggingface.co/settings/tokens and log in", "hf auth login"
                ),
                remedy(
                    "and take the old one out of the environment", "unset HF_TOKEN HUGGING_FACE_HUB_TOKEN"
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:LocalTokenNotFoundError|Token is required \(`token=True`\)|Token is required"
            r" \(|but no token found\. You need to provide a token)",
            example="LocalTokenNotFoundError: Token is required (`token=True`), but no token found. You"
            " need to provide a token or be"
            " logged in to Hugging Face with `hf auth login` or `huggingface_hub.login`.",
            counter_example="token=True",
            cause="The job asks for a token (token=True) and there is none",
            fixes=(
                remedy("log in", "hf auth login"),
                remedy("in a container or batch job", "HF_TOKEN=hf_...", "environment"),
            ),
        ),
        Symptom(
            pattern=r"You specified (?:use_auth_token|token)=True, but a huggingface token was not found",
            example="EnvironmentError: You specified use_auth_token=True, but a huggingface token was not"
            " found.",
            counter_example="use_auth_token=True",
            cause="The job asks for a token (use_auth_token=True) and there is none",
        ),
        Symptom(
            pattern=r"Make sure your token has the correct permissions|make sure you have a token with"
            r" the `write` role|don`t have the rights to create a model under",
            example="Make sure your token has the correct permissions.",
            counter_example="your token has the permissions",
            cause="The token may not do this: it is read-only, or not for this repository",
            fixes=(
                remedy(
                    "make a token with the right to write, or for this repository, and log in",
                    "hf auth login",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?P<revision>[\w./-]{1,80}) is not a valid git identifier \(branch name, tag name"
            r" or commit id\)|Revision Not Found for url",
            example="OSError: v9 is not a valid git identifier (branch name, tag name or commit id) that"
            " exists for this model name.",
            counter_example="the git identifier is valid",
            cause="The model has no such revision (branch, tag or commit)",
            fixes=(remedy("leave revision= out, or take one that the model's page shows under Files"),),
        ),
        Symptom(
            pattern=r"Access to this resource is disabled",
            example="Cannot access repository for url https://huggingface.co/org/model. Access to this"
            " resource is disabled.",
            counter_example="Access to this resource is granted",
            cause="The Hub has disabled this repository",
            fixes=(remedy("use another copy of the model: nothing here can change that"),),
        ),
    )
    remedies = (
        remedy(
            "ask for access on the model's page, and wait for the answer", "https://huggingface.co/ORG/MODEL"
        ),
        remedy("then give the job a token of that account", "hf auth login"),
        remedy("in a container or batch job", "HF_TOKEN=hf_...", "environment"),
    )
