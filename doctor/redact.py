"""Takes secrets and names out of a report or a recording, by value, and leaves fixes that can be pasted.

The home folder becomes `~`, the user `$USER`, the host `<host-1>`; tokens, passwords, other users and hosts,
network addresses and the numbers of devices become stand-ins, the same one for the same value.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import os
import pwd
import re
from typing import (
    Any,
    Iterable,
    Literal,
    Mapping,
    Tuple,
    Type,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import quote

import msgspec

from llm_doctor.host import SECRET_VARIABLE
from llm_doctor.model import CheckResult, Fix, Mount, Packages, Proof, Report, TrialResult

_NOT_SECRET = frozenset(
    re.findall(
        r"\S+",
        "root ubuntu user users admin vm localhost debian centos ec2-user azureuser host node home docker"
        " runner nobody linux python torch cuda cpu gpu train training test data model models main master"
        " worker server login cluster dev build git jovyan vscode slurm ray shared public guest device rank"
        " localhost4 localhost6 ip6-localhost localhost.localdomain conda anaconda3 miniconda3 miniforge3"
        " true false none null yes default enabled disabled always never required optional",
    )
)

_ESCAPE = re.compile(
    r"\\(?:[nrt]|(?:x1b|u001b|033)\[[\d;]*[A-Za-z])|\x1b\[[\d;]*[A-Za-z]|%[0-9A-F]{2}|-[IL](?=/)"
)
_BORDER = "\0"
"""Stands, while a text is read, behind what is escaped and behind a compiler's -I and -L: these end in
letters, and another word begins there."""

# --- Secrets and names, by what their name says ---------------------------------------------------------

_ASSIGNMENT = re.compile(
    r"""
    (?<![\w.-])(?P<line>^[ \t]*)?
    (?: (?:--|(?:ENV|setenv)[ ]+)(?P<option>[A-Za-z][\w-]*)[ ]+
      | -{0,2}(?P<name>[A-Za-z_][\w.-]*)(?![\w.-])
        (?P<by>\\?["']?\]?[ \t]*[=:][ \t]*  |  \\?["']?,?\s{1,40}\\?["']?value\\?["']?:[ ]*
          |  \\?["'],[ ]?(?=\\?["'])) )
    """,
    re.VERBOSE | re.MULTILINE,
)
_ASSIGNED = re.compile(
    r"""(?:[rbf]?\\?(?P<quote>["']))?(?P<value>(?(quote)(?:(?!\\?(?P=quote))[^\n])+|[^\s"'`&]+))"""
)
_ENDS_OPTION = re.compile(r"\s{0,40}(?:\Z|-|\\|\S{1,200}\.py\b)")
_NAME_HINTS = (
    *("token", "key", "secret", "pass", "pwd", "credential", "cookie", "jwt", "sig", "_pat", "_sas"),
    *("host", "addr", "endpoint", "process", "node", "fqdn", "user", "log"),
)
_SECRET_NAME = re.compile(
    r"(?:(?:api|access|private|account|secret|signing|encryption|licen[sc]e|auth|shared|storage|subscription|wandb)"
    r"key(?:id)?|secret|password|passwd|passphrase|credentials?|cookie|jwt|token|amzsignature)$"
)
_SECRET_WORDS = frozenset("secret password passwd passphrase".split())
_OF_A_TOKENIZER = frozenset(
    "pad eos bos unk cls sep mask special additional image audio video boi eoi stop start end prefix suffix"
    " new max min num per n first last next extra forced begin the a one each bad this single".split()
)
_HOST_NAME = re.compile(
    r"(?:master|main|head|rdzv)(?:addr|address|endpoint|processip)$|(?:host|hostname|nodename|fqdn)$"
)
_USER_NAME = re.compile(r"^(?:slurmjob)?(?:user|username|login|logname|sudouser|mailuser)$")
# An expression, or what another variable holds, is not said here.
_EXPRESSION = re.compile(
    r"""(?x)[$<({%[] | .*[(\[]$ | (?:self|os|\w*args?|\w*config|cfg|env|environ|settings|opts?|options
      |params|kwargs)\.
      | [A-Za-z_]*(?:token|key|secret|pass|pwd)[A-Za-z_]*[,;)]*$"""
)

# --- Secrets and names, by their shape and by what they stand between ------------------------------------

_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_DISTINCT_HOST = rf"(?=[A-Za-z._-]*[\d.-])(?=[\d.]*[A-Za-z]){_HOST}"
"""That a word alone is a host can be told from nothing."""
_NAMED = rf"(?=[\d.]*[A-Za-z]){_HOST}"  # and no address
_PROMPT = r"(?::[~/]|[ ][^\s\]]+\][$\#])"  # of a shell, behind user and host
_OCTET = "[0-9A-Fa-f][0-9A-Fa-f]"
_KEY_END = r"-----END\ [A-Z ]*PRIVATE\ KEY[A-Z ]*-----"
_ALL_ALIKE = ("token", "credentials", "secret")
_Rules = Tuple[Tuple[str, Tuple[str, ...], "re.Pattern[str]"], ...]


def _rules(*rules: Tuple[str, str, str]) -> _Rules:
    """What is found, where to look for it (any of these is in the text, in small letters), and what it is."""
    return tuple(
        (kind, tuple(hints.split("|")), re.compile(pattern, re.VERBOSE | re.ASCII))
        for kind, hints, pattern in rules
    )


_TOKENS = _rules(
    (
        "token",
        "hf_|api_org_|ghp_|gho_|ghu_|ghs_|ghr_|_pat_|gl|k-|k_|nvapi-|xai-|pplx-|r8_|_v1_|wandb_v|dapi|xox|xapp-"
        "|local-|npm_|pypi-|aiza|ya29|gocspx|1//0|sg.|8q~|hvs.|akia|asia|abia|acca|eyj|slack|private",
        rf"""(?<![A-Za-z0-9])(?:
                hf_(?:oauth_|jwt_)[\w.-]{{16,}} | hf_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{{16,}}
              | api_org_[A-Za-z0-9]{{16,}} | gh[pousr]_[A-Za-z0-9]{{20,}} | github_pat_\w{{20,}}
              | gl(?:pat|dt|rtr?|cbt|ptt|ft|oas|imt|agent|soat|ffct)-[\w-]{{16,}}
              | [spr]k-(?=proj-|ant-|[\w-]{{0,200}}[\dA-Z])[\w-]{{20,}} | [sr]k_(?:live|test)_\w{{16,}}
              | (?:nvapi|xai|pplx)-[\w-]{{20,}} | hvs\.[\w-]{{20,}}
              | (?:gsk_|r8_|dop_v1_|dckr_pat_|tgp_v1_)[\w-]{{20,}} | dapi[0-9a-f]{{32}}
              | (?:xox[abeoprs]|xapp)-[\w-]{{10,}} | wandb_v\d_\w{{20,}} | local-[0-9a-f]{{40}}
              | npm_[A-Za-z0-9]{{30,}} | pypi-[\w-]{{40,}}
              | AIza[\w-]{{30,}} | ya29\.[\w-]{{20,}} | GOCSPX-[\w-]{{20,}} | 1//0[\w-]{{30,}}
              | SG\.[\w-]{{16,}}\.[\w-]{{16,}} | [\w~.-]{{3}}8Q~[\w~.-]{{31,}}
              | A(?:KI|SI|BI|CC)A[A-Z0-9]{{16}}(?![A-Za-z0-9])
                (?:[^A-Za-z0-9/+]{{1,3}}(?:[A-Za-z0-9/+]{{40}}(?![\w/+=])|[A-Za-z0-9/+]+(?=\.\.\.)))?
              | (?:hf_|gh[pousr]_|github_pat_|[spr]k-|gsk_|nvapi-|glpat-|AKIA|AIza)  # cut off
                (?=\w{{0,40}}[A-Z\d])[\w-]{{1,40}}(?=\.\.\.(?:\s|$))
              | eyJ[\w-]{{8,}}(?:\.[\w-]*){{2,4}} | eyJ[\w+/-]{{16,}}=*  # and deepspeed's hosts
            )
            | (?<=hooks\.slack\.com/services/)[\w/]+
            | -----BEGIN\ [A-Z ]*PRIVATE\ KEY[A-Z ]*-----(?s:.*?)(?:{_KEY_END}|\Z)
            | (?:[A-Za-z0-9+/=]{{16,}}(?:\s|\\[nr]{_BORDER})+)+{_KEY_END}""",
    ),
    ("credentials", "curl ", r"""curl[ ].{0,200}?(?:-u|--user)[ ]+["']?([^\s"':]+:[^\s"']+)"""),
    ("credentials", "@", r"(?<=://)(?!git@|(?:[\w${}-]*:)?\$\{?\w+\}?@)[^\s/'\"]+(?=@)"),
)
_RULES = _rules(
    (
        "secret",
        "authorization",
        r"""(?i)authorization\\?["']?\s*[:=]\s*\\?["']?(?:(?:bearer|basic|token)\s+)?
          (?!(?:bearer|basic|token)\b)([^\s"'<$\\]+)""",
    ),
    ("secret", "bearer", r"(?i)\bbearer\s+(?=\S*\d)([\w.~+/-]{12,}=*)"),
    ("secret", "password", r"(?i)login\s+\S+\s+password\s+([^\s<]+)"),  # of a .netrc
    ("secret", "wandb", r"(?i)wandb.{0,100}?(?<![0-9a-f@])([0-9a-f]{40})\b"),
    ("secret", '"auth', r""""auth\\?"\s*:\s*\\?"([^"\s\\]{8,})"""),
    ("secret", "signature=", r"""(?i)[?&]signature=([^\s"'&]{8,})"""),
    (
        "serial",
        "serial",
        r"""(?i)\bserial(?:[ _]?(?:number|no\.?))?["']?\s*[:=>]\s*["']?((?=[\w-]*\d)[\w-]{6,})""",
    ),
    (
        "user",
        "home|users",
        r"""[/\\](?:homes?\d*|[Uu]sers)[/\\]{1,2}(?:[Uu]sers[/\\])?(\w[^/\s:'"<>$\\,;)\]]*)""",
    ),
    ("user", "~", rf"""(?:^|(?<=[\s{_BORDER}:='"]))~([a-z_][\w-]*)(?=/)"""),
    ("user", "uid=", r"\buid=\d+\(([\w.-]+)"),
    ("user", "@", rf"(?<![\w.@/$-])([a-z_][\w.-]*)(?=@{_NAMED}{_PROMPT})"),
    ("host", "@", rf"(?<=@)({_NAMED})(?={_PROMPT}) | (?<=\$USER@)({_HOST})"),
    (
        "host",
        "nccl|slots=",
        rf"(?m)(?:^|(?<=[\s{_BORDER}\]>]))({_HOST})(?=:\d+:\d+[ ]\[\d+\][ ]NCCL|[ \t]+slots=\d)",
    ),
    (
        "host",  # pdsh says it before every line
        'traceback|file "|error: ',
        rf"""(?m)^(?!(?i:rank|gpu|process|worker)[ _]?\d)({_DISTINCT_HOST}):[ ]+
          (?:Traceback[ ]\(|File[ ]"|[\w.]{{1,80}}Error:[ ])""",
    ),
    ("host", "]:", rf"\[({_NAMED})\](?=:\d{{2,5}}\b)"),
    ("host", " to (| of (", rf"(?:address[ ]of|connect[ ]to)[ ]\(({_NAMED})(?=,[ ]?\d{{4,5}}\))"),
    (
        "host",
        "://",
        rf"""://(?:(?<=\b(?:tcp|udp|ssh|nfs|ucx|ray)://)|(?<=\b(?:grpc|etcd)://)|(?<=\bredis://))
          (?:[^\s/@]*@)?({_NAMED})""",
    ),
    ("host", "http", r"""https?://(?:[^\s/@]*@)?((?=[\d-]*[a-z])[a-z0-9-]+)(?=[:/\s"']|$)"""),
    (
        "host",
        ".local|.internal|.lan|.corp|.intranet",
        r"""(?i)(?:(?<![\w.-])(?=[\w-]*[\d-])|(?<=://))
          ([a-z0-9][\w-]*(?:\.[\w-]+)*\.(?:local|internal|lan|corp|intranet))\b""",
    ),
    ("host", "ip-", r"\b(ip-\d+-\d+-\d+-\d+(?:\.[\w.-]*\w)?)"),
    (
        "host",
        "srun: error: | on ",
        rf"\b(?:srun:[ ]error:|JOB[ ]\d+[ ]ON|STEP[ ][\d.]+[ ]ON)[ ]({_HOST})",
    ),
    ("host", "linux ", rf"Linux[ ]({_HOST})(?=[ ]\d+\.\S+[ ]\#\d)"),  # uname -a
    ("host", "ssh ", rf"\bssh[ ](?:-(?:\S[ ]\d+|\S+)[ ])*(?:[\w.$-]+@)?({_DISTINCT_HOST})"),
    ("host", "nfs|cifs|lustre|ceph", r"[ ](?:nfs4?|cifs|lustre|ceph)[ ](?://)?([A-Za-z][\w.-]*)(?=[:/,@])"),
    ("email", "@", r"(?<![\w.+/:$-])(?!git@)([\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,})\b"),
    (
        "mac",
        ":",
        rf"(?<![A-Za-z0-9])(?<![A-Za-z0-9]:)({_OCTET}(?::{_OCTET}){{5,19}})(?!:?[A-Za-z0-9])",
    ),
    ("mac", "-", rf"(?<![A-Za-z0-9-])((?=[\d-]*[A-Fa-f]){_OCTET}(?:-{_OCTET}){{5}})(?![A-Za-z0-9-])"),
    # Of an InfiniBand port.
    ("mac", ":", r"(?<![A-Za-z0-9:])([0-9a-f]{4}(?::[0-9a-f]{4}){3})(?!:?[A-Za-z0-9]|::)"),
    (
        "gpu-id",
        "gpu-|mig-",
        r"(?<![A-Za-z0-9])((?:MIG-)?(?:GPU|MIG)-[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4,12})*(?:/\d+/\d+)?)\b",
    ),
    (
        "hosts",
        "node|pdsh|clude",
        r"""(?i)(?:node_?list["']?[ \t]*[=:][ \t]*["']? | --nodelist[ ]+ | \bpdsh\b.{0,200}?[ ]-w[ ]+)
          ([a-z][\w.,[\]-]*[\w\]])
        | --(?:include|exclude)[= ]["']?((?=\S*[:@]\S*[-\d])[a-z][\w.,:@-]*\w)""",
    ),
    ("uuid", "-", r"(?<![\w-])([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})(?![\w-])"),
)
_PUBLIC_DOMAIN = re.compile(
    r"(?i)(?:^|\.)(?:huggingface\.co|hf\.co|github(?:usercontent)?\.com|gitlab\.com|pytorch\.org|nvidia\.com|nvcr\.io"
    r"|pypi\.org|python(?:hosted)?\.org|anaconda\.(?:org|com)|docker\.(?:io|com)|quay\.io|ghcr\.io|wandb\.ai"
    r"|openai\.com|google(?:apis)?\.com|amazonaws\.com|windows\.net|modelscope\.cn)$"
)
_NODE_VARIABLE = re.compile(
    r"(NODELIST|NODENAME|_HOST|HOSTNAME|HOSTS|MASTER_ADDR|IPADDR|^SSH_(CLIENT|CONNECTION))$"
)

# --- Network addresses ---------------------------------------------------------------------------------

_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![A-Za-z0-9+]|\.[0-9])")
# 10.3.5.147 is also a version of a CUDA wheel.
_BEFORE_VERSION = re.compile(
    r"(?i)(?:[=<>~!]=|\w-|\bv|versions?:?[ ]|\bcu\w+\W{1,4}|\b(?:nvidia|lib)[\w-]*\W{1,4})\s*$"
)
_BEFORE_ADDRESS = re.compile(
    r"(?i)(?:addr\w*|\bip|host|endpoint|server|peer|inet|remote|connect\w*(?: to)?|gateway|master"
    r"|\b(?:eth|ib|en[ops]|bond)\d\w*|//|@)[\"'\s:=<\[(]*$"
)
_AFTER_ADDRESS = re.compile(r"\]?:[\d/]|/\d|@|<\d|[\"']?, ?\d{4,5}\b| dev ")
_NOBODYS_ADDRESS = re.compile(r"127\.|0\.0\.0\.0|255\.|169\.254\.169\.254")
_STARTS_IPV6 = re.compile(r"(?i)(?:[23][0-9a-f]|f[cdef])[0-9a-f]{2}:")
_IPV6 = re.compile(r"(?:(?<![A-Za-z0-9:.])|(?<=Gids))[0-9A-Fa-f:]*:[0-9A-Fa-f]*:[0-9A-Fa-f:]*(?![A-Za-z0-9])")

_IDENTIFIERS = {(CheckResult, "name"), (CheckResult, "topic"), (TrialResult, "name"), (Proof, "trial")}

S = TypeVar("S", bound=msgspec.Struct)


class Redactor:
    """Replaces whole tokens; equal values get equal stand-ins within one redactor.

    All is read before anything is handed out: what one line gives away as a host is one in all lines."""

    def __init__(
        self,
        environ: Mapping[str, str],
        host_name: str,
        users: Iterable[str] = (),
        homes: Iterable[str] = (),
        addresses: Iterable[str] = (),
        domains: Iterable[str] = (),
    ) -> None:
        self._read = functools.lru_cache(maxsize=None)(self._first_reading)
        self._stand_ins: dict[Tuple[str, str], str] = {}
        self._counts = {"host": 1}  # the first is this one
        self._secrets: set[str] = set()
        self._hosts: set[str] = set()
        self._addresses: set[str] = set()
        self._series: set[str] = set()  # patterns of hosts
        self._versions: set[str] = set()  # no addresses
        self._known: set[str] = set()  # before any text was read
        for name, value in environ.items():
            # A path that a variable of such a name holds is a place, not a secret.
            named = SECRET_VARIABLE.search(name) or _kind_of(name) == "secret"
            if named and len(value) >= 6 and value.lower() not in _NOT_SECRET and not _is_place(value):
                self._secrets |= {value.strip(), quote(os.fsencode(value), safe=""), json.dumps(value)[1:-1]}
                self._secrets |= {line.strip() for line in value.splitlines() if len(line) >= 16}
        places = {home.rstrip("/") for home in (environ.get("HOME", ""), *homes)} - {""}
        escaped = {quote(os.fsencode(home), safe="") for home in places}
        self._home = _any_of(places | escaped, r"(?<![\w.])", r"(?![\w-]|\.\w)")
        given = (environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER"))
        known = {name for name in (*given, *users, *map(os.path.basename, places)) if _is_name(name)}
        self._stand_ins.update({("user", name): "$USER" for name in known})
        self._user = _any_of(known)  # exact: adam is a user, Adam an optimizer
        self._own = tuple(map(_bordered, (*places, *escaped, *known)))
        self._own_host(host_name, domains)
        for address in addresses:
            self._number("address", address)
        self._know()
        for name in sorted(environ):
            if _NODE_VARIABLE.search(name):
                for word in environ[name].split():
                    self._nodes(word)
                    self._first_reading(f"host={word}")
        self._known = self._know()

    def _own_host(self, name: str, domains: Iterable[str]) -> None:
        short, _, domain = name.partition(".")
        if _is_name(short):
            for each in (name, short):
                self._stand_ins["host", each.lower()] = "<host-1>"
                self._hosts |= {each, each.lower()}
            series = re.fullmatch(r"(.*[A-Za-z].*?)\d+([A-Za-z-]*)", short)
            if series and _is_name(series.group(1).strip("-_")):
                self._series.add(rf"{re.escape(series.group(1))}\d+{series.group(2)}")
        for each in (domain, *domains):
            if "." in each and not _PUBLIC_DOMAIN.search(each):
                self._series.add(rf"(?<![A-Za-z0-9.-])(?:[A-Za-z0-9.-]*\.)?{re.escape(each)}")

    def _know(self) -> set[str]:
        """From now on what was told so far is replaced wherever it stands; returns patterns of all that."""
        known = {*self._series, *map(re.escape, self._hosts | self._secrets | self._addresses)}
        self._told = re.compile("|".join(known - self._known) or "(?!)", re.ASCII)
        long = {secret for secret in self._secrets if len(secret) >= 16}
        beginnings = {it[:16] for it in long if re.match(r"(?=\D*\d)[\w+/=.~-]{16}", it)}
        cut_off = _any_of(beginnings, "", r"[^\s\"'<>,;).]*").pattern  # as a long error is
        self._long_secret = re.compile(f"{_any_of(long, '', '').pattern}|{cut_off}")
        self._secret = _any_of(self._secrets - long)
        hosts = [*sorted(self._series), *map(re.escape, sorted(self._hosts, key=len, reverse=True))]
        self._host = re.compile(
            rf"(?<![A-Za-z0-9])(?!hosts?-\d+>)(?:{'|'.join(hosts) or '(?!)'})(?![A-Za-z0-9])", re.ASCII
        )
        self._address = _any_of(self._addresses, "(?<![A-Za-z0-9.:])", r"(?![A-Za-z0-9:+]|\.\d)")
        self._replaced = functools.lru_cache(maxsize=None)(self._second_reading)
        return known

    def _number(self, kind: str, value: str) -> str:
        """The stand-in for a value."""
        key = value if kind == "user" else value.lower()
        if key in _NOT_SECRET or (kind in ("user", "host") and (key.isdigit() or _PUBLIC_DOMAIN.search(key))):
            return value
        if (kind, key) not in self._stand_ins:
            same = self._same_thing(kind, key)
            if same is None:
                self._counts[kind] = self._counts.get(kind, 0) + 1
                same = f"<{kind}-{self._counts[kind]}>"
            self._stand_ins[kind, key] = same
            if kind == "host" and re.fullmatch(_DISTINCT_HOST, value):
                self._hosts |= {value, key}
            if kind == "address":
                self._addresses |= {value, key}
        return self._stand_ins[kind, key]

    def _same_thing(self, kind: str, value: str) -> str | None:
        """The stand-in of a host's other name, of a GPU by a part of its UUID."""
        short, _, domain = value.partition(".")
        if kind == "host" and domain and re.fullmatch(_DISTINCT_HOST, short):
            return self._number("host", short)
        if kind == "gpu-id":
            alike = (it for it in self._stand_ins if it[0] == kind)
            return next((self._stand_ins[it] for it in alike if it[1].startswith(value)), None)
        return None

    # --- Text ------------------------------------------------------------------------------------------

    def _without_secrets(self, text: str) -> str:
        return self._secret.sub("<secret>", self._long_secret.sub("<secret>", text))

    def _first_reading(self, text: str) -> str:
        """The text without what is known or can be told; what is told is known henceforth."""
        text = self._without_secrets(_bordered(text))
        small = text.lower()
        text = self._apply(_TOKENS, text, small)
        if any(map(small.__contains__, _NAME_HINTS)):
            text = self._assignments(text)
        if any(map(text.__contains__, self._own)):
            text = self._user.sub(_user_found, self._home.sub("~", text))
        text = self._apply(_RULES, text, small)
        text = self._host.sub(self._host_found, text)
        if text.count(".") > 2:
            text = _IPV4.sub(self._ipv4_found, text)
        if text.count(":") > 1:
            text = _IPV6.sub(self._ipv6_found, text)
        return text.replace(_BORDER, "")

    def _apply(self, rules: _Rules, text: str, small: str) -> str:
        for kind, hints, pattern in rules:
            for hint in hints:
                if hint in small:
                    text = pattern.sub(functools.partial(self._found, kind), text)
                    break
        return text

    def _second_reading(self, text: str) -> str:
        """The text without what any text has told in the first reading."""
        text = self._read(text)
        if not self._told.search(text):
            return text
        text = self._without_secrets(_bordered(text))
        text = self._host.sub(self._host_found, text)
        return self._address.sub(lambda it: self._number("address", it.group()), text).replace(_BORDER, "")

    def _assignments(self, text: str) -> str:
        parts, end = [], 0
        for match in _ASSIGNMENT.finditer(text):
            kind = _kind_of(match["name"] or match["option"])
            assigned = _ASSIGNED.match(text, match.end()) if kind and match.end() >= end else None
            if kind is None or assigned is None:
                continue
            by, quoted, start = match["by"], bool(assigned["quote"]), assigned.start("value")
            value = assigned["value"] if quoted else assigned["value"].rstrip(",;)]}")
            if by is None:
                sure = _ENDS_OPTION.match(text, start + len(value)) is not None
            elif match["line"] is not None:
                after = start + len(value) + quoted
                sure = "=" in by or text[after : after + 1] in ("", "\n")
            else:
                sure = "=" in by or (quoted and by[:1] in ("\\", '"', "'") and "," not in by)
            parts += [text[end:start], self._assigned(kind, value, sure, quoted)]
            end = start + len(value)
        return "".join([*parts, text[end:]])

    def _assigned(self, kind: str, value: str, sure: bool, quoted: bool) -> str:
        """What a variable, a key or an option of a telling name holds, without it; unless `sure`, it may be
        prose."""
        if kind == "secret":
            distinct = bool(re.search(r"\d|[a-z][A-Z]", value))
            open_ = len(value) < 4 or value.lower() in _NOT_SECRET or _is_place(value) or value[0] in "$<{"
            prose = not sure and not (distinct and len(value) >= 6)
            if open_ or prose or (not quoted and _EXPRESSION.match(value)):
                return value
            if distinct and len(value) >= 8:
                self._secrets.add(value.replace(_BORDER, ""))
            return "<secret>"
        pattern = r"[\w.-]+" if kind == "user" else _HOST if sure else _DISTINCT_HOST
        name = re.match(pattern, value) if sure or kind == "host" else None
        if name is None or _IPV4.fullmatch(name.group()) or _EXPRESSION.match(value):
            return value
        if value[name.end() : name.end() + 1] in ("(", "["):  # a call, or a node list
            return value
        return self._number(kind, name.group()) + value[name.end() :]

    def _found(self, kind: str, match: re.Match[str]) -> str:
        before, value, after = _around(match)
        if kind in _ALL_ALIKE:
            return f"{before}<{kind}>{after}"
        if kind == "hosts":
            self._nodes(value)
            if "[" not in value:  # each is replaced when all is read
                return match.group()
        return before + self._number(kind, value) + after

    def _host_found(self, match: re.Match[str]) -> str:
        value = match.group()
        part = _is_part_of_a_name(match) and not re.fullmatch(_DISTINCT_HOST, value)
        return value if part else self._number("host", value)

    def _nodes(self, words: str) -> None:
        """Knows the hosts of a node list, `gpu[01-03,7],login1`, or of a DeepSpeed filter, `a-1:0,1@b-2`."""
        for part in re.findall(r"[A-Za-z](?:[\w.-]|\[[\d,-]+\])*", words):
            if "[" in part:
                plain = map(re.escape, re.split(r"\[[\d,-]+\]", part))
                self._series.add(r"\d+".join(plain))
            elif re.fullmatch(_DISTINCT_HOST, part):
                self._number("host", part)

    def _ipv4_found(self, match: re.Match[str]) -> str:
        text, value = match.string, match.group()
        before, after = text[max(0, match.start() - 48) : match.start()], text[match.end() : match.end() + 12]
        first, second, third, fourth = map(int, value.split("."))
        if (
            re.match("[A-Za-z0-9.]", before[-1:])
            or max(first, second, third, fourth) > 255
            or _NOBODYS_ADDRESS.match(value)
        ):
            return value
        if not (_BEFORE_ADDRESS.search(before) or _AFTER_ADDRESS.match(after)):
            version = value in self._versions or _BEFORE_VERSION.search(before)
            private = (first, second) == (192, 168) or (first == 172 and 16 <= second < 32)
            if first < 20 and (first != 10 or value == text):
                return value
            if version and not private:
                return value
        return self._number("address", value)

    def _ipv6_found(self, match: re.Match[str]) -> str:
        before, value, after = re.fullmatch("(:(?!:))?(.*?)((?<!:):)?", match.group()).groups("")  # type: ignore[union-attr]
        try:
            address = ipaddress.IPv6Address(value)
        except ValueError:
            return match.group()
        # Others are C++ names (a::b), times, or nobody's.
        if address.is_loopback or not (value.count(":") == 7 or _STARTS_IPV6.match(value)):
            return match.group()
        return f"{before}{self._number('address', value)}{after}"

    # --- Data ------------------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        """The text without them."""
        return str(self.value(text))

    def value(self, value: Any) -> Any:
        """The same for every string in a JSON value. Of keys only secrets: names of packages stay."""
        self._replaced = self._read
        self._value(value)
        self._know()
        return self._value(value)

    def struct(self, value: S) -> S:
        """The same for a part of a report; words of a fixed vocabulary and names of checks stay."""
        redacted: S = self.value(value)
        return redacted

    def report(self, report: Report) -> Report:
        """The report without them."""
        return self.struct(report)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._replaced(value)
        if isinstance(value, msgspec.Struct):
            return self._struct(value)
        if isinstance(value, dict):
            return {self._key(key): self._item(key, item) for key, item in value.items()}
        if isinstance(value, tuple):
            return tuple(map(self._value, value))
        if isinstance(value, list):
            return list(map(self._value, value))
        return value

    def _key(self, key: Any) -> Any:
        if not isinstance(key, str):
            return key
        if "/" in key:
            return self._replaced(key)
        return self._apply(_TOKENS, self._without_secrets(key), key.lower())

    def _item(self, key: Any, item: Any) -> Any:
        kind = _kind_of(key) if isinstance(key, str) and isinstance(item, str) else None
        return self._value(self._assigned(kind, item, True, True) if kind else item)

    def _struct(self, value: msgspec.Struct) -> Any:
        kept = _kept_fields(type(value))
        if isinstance(value, Packages):
            self._versions.update(value.installed.values())
        if isinstance(value, Mount) and value.kind == "network":  # server, share and user in one
            self._nodes(value.device.lstrip("/").partition(":")[0].partition("/")[0])
            value = msgspec.structs.replace(value, device=self._number("server", value.device))
        changes = {
            name: self._value(getattr(value, name)) for name in value.__struct_fields__ if name not in kept
        }
        if isinstance(value, Packages):  # of one's own they may have one's own name
            changes["installed"] = {self._replaced(key): it for key, it in changes["installed"].items()}
        if isinstance(value, Fix):  # a shell knows ~ only at the beginning of a word
            changes["preview"] = re.sub(r"(?<=[=\"/])~(?=/|\b)|(?<=-[IL])~(?=/)", "$HOME", changes["preview"])
        return msgspec.structs.replace(value, **changes)


def _bordered(text: str) -> str:
    return _ESCAPE.sub(rf"\g<0>{_BORDER}", text)


def _any_of(
    values: Iterable[str], before: str = "(?<![A-Za-z0-9])", after: str = "(?![A-Za-z0-9])"
) -> re.Pattern[str]:
    """The values where they stand between these, a longer one before its parts."""
    found = sorted((re.escape(_bordered(value)) for value in values if value), key=lambda it: (-len(it), it))
    return re.compile(f"{before}(?:{'|'.join(found) or '(?!)'}){after}")


def _around(match: re.Match[str]) -> Tuple[str, str, str]:
    """What stands before the group that matched, the group, what stands behind it."""
    start, end = (place - match.start() for place in match.span(match.lastindex or 0))
    return match.group()[:start], match.group()[start:end], match.group()[end:]


def _user_found(match: re.Match[str]) -> str:
    if _is_part_of_a_name(match):
        return match.group()
    return "${USER}" if match.string[match.end() : match.end() + 1] == "_" else "$USER"


def _is_part_of_a_name(match: re.Match[str]) -> bool:
    """Whether it stands in a longer name that is no path: optim.adam, run_adam()."""
    text, start, end = match.string, match.start(), match.end()
    if not (start and text[start - 1] in "._") and text[end : end + 1] != "_":
        return False
    return re.search(r"/\S*$", text[max(0, start - 256) : start]) is None


def _is_name(value: str) -> bool:
    return len(value) > 2 and not value.isdigit() and value.lower() not in _NOT_SECRET


def _is_place(value: str) -> bool:
    secret = r"(?=.*\d)(?=.*[a-z])(?=.*[A-Z])(?:[A-Za-z0-9/+]{40}|[A-Za-z0-9/+]{86}==)"  # of AWS, of Azure
    return value.startswith(("/", "~/", "./", "../")) and not re.fullmatch(secret, value)


@functools.lru_cache(maxsize=None)
def _kind_of(name: str) -> str | None:
    """What a variable, a key or an option of this name holds, if that is nobody's business."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    joined = "".join(words)
    if not words or (words[-1] == "token" and words[-2:-1] and words[-2] in _OF_A_TOKENIZER):
        return None
    if (
        _SECRET_NAME.search(joined)
        or _SECRET_WORDS.intersection(words)
        or (words[-1] in ("pass", "pwd", "sig") and name != "PASS")  # a verdict
        or (name.isupper() and words[-1] in ("key", "pat", "sas") and len(words) > 1)
    ):
        return "secret"
    if _HOST_NAME.search(joined):
        return "host"
    return "user" if _USER_NAME.search(joined) else None


@functools.lru_cache(maxsize=None)
def _kept_fields(kind: Type[Any]) -> frozenset[str]:
    vocabulary = {
        name
        for name, hint in get_type_hints(kind).items()
        if any(get_origin(part) is Literal for part in (hint, *get_args(hint)))
    }
    named = {name for owner, name in _IDENTIFIERS if owner is kind}
    return frozenset(vocabulary | named | set(getattr(kind, "identifiers", ())))


def redactor() -> Redactor:
    """The redactor for this machine and this user."""
    users, homes = [], []
    with contextlib.suppress(KeyError):  # a container's user need not be in the password file
        entry = pwd.getpwuid(os.getuid())
        users.append(entry.pw_name)
        homes.append(entry.pw_dir)
    environ = dict(os.environ)
    if environ.get("HOME", "").startswith("/"):
        homes.append(os.path.realpath(environ["HOME"]))
    domains = re.findall(r"(?m)^(?:search|domain)[ \t]+(.*)$", _file("/etc/resolv.conf"))
    return Redactor(
        environ, os.uname().nodename, users, homes, _own_addresses(), " ".join(domains).lower().split()
    )


def _own_addresses() -> list[str]:
    found = set(re.findall(r"\|-- (\d+(?:\.\d+){3})\s+/32 host LOCAL", _file("/proc/net/fib_trie")))
    sixes = (line.split()[0] for line in _file("/proc/net/if_inet6").splitlines())
    found |= {str(ipaddress.IPv6Address(int(six, 16))) for six in sixes}
    return sorted(address for address in found if not address.startswith("127.") and address != "::1")


def _file(path: str) -> str:
    with contextlib.suppress(OSError), open(path, errors="replace") as file:
        return file.read()
    return ""
