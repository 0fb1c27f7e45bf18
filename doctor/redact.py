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
        " localhost4 localhost6 ip6-localhost localhost.localdomain"
        " true false none null yes default enabled disabled always never required optional",
    )
)

# --- Tokens, by their shape ---------------------------------------------------------------------------

# What is escaped in JSON or a URL ends in letters; what is written in another script is no part of a token.
_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=%[0-9A-F]{2}))"
_TOKEN = re.compile(
    rf"""
      {_START}(?:
        hf_(?:oauth_|jwt_)[\w.-]{{16,}} | hf_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{{16,}} | api_org_[A-Za-z0-9]{{16,}}
      | gh[pousr]_[A-Za-z0-9]{{20,}} | github_pat_\w{{20,}}
      | gl(?:pat|dt|rtr?|cbt|ptt|ft|oas|imt|agent|soat|ffct)-[\w-]{{16,}}
      | [spr]k-(?=proj-|ant-|[\w-]*[\dA-Z])[\w-]{{20,}} | [sr]k_(?:live|test)_\w{{16,}}
      | (?:nvapi|xai|pplx)-[\w-]{{20,}}
      | (?:gsk_|r8_|dop_v1_|dckr_pat_|tgp_v1_)[\w-]{{20,}} | dapi[0-9a-f]{{32}}
      | (?:xox[abeoprs]|xapp)-[\w-]{{10,}} | wandb_v\d_\w{{20,}} | local-[0-9a-f]{{40}}
      | npm_[A-Za-z0-9]{{30,}} | pypi-[\w-]{{40,}}
      | AIza[\w-]{{30,}} | ya29\.[\w-]{{20,}} | GOCSPX-[\w-]{{20,}} | 1//0[\w-]{{30,}}
      | SG\.[\w-]{{16,}}\.[\w-]{{16,}} | [\w~.-]{{3}}8Q~[\w~.-]{{31,}}
      | A(?:KI|SI|BI|CC)A[A-Z0-9]{{16}}(?![A-Za-z0-9])(?:[^A-Za-z0-9/+]{{1,3}}[A-Za-z0-9/+]{{40}}(?![\w/+=]))?
      | eyJ[\w-]{{8,}}(?:\.[\w-]*){{2,4}} | eyJ[\w+/-]{{16,}}=*  # also the hosts that deepspeed encodes
    )
    | (?<=hooks\.slack\.com/services/)[\w/]+
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY[A-Z ]*-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY[A-Z ]*-----|\Z)
    | (?:[A-Za-z0-9+/=]{{16,}}(?:\s|\\n)+)+-----END\ [A-Z ]*PRIVATE\ KEY[A-Z ]*-----
    """,
    re.VERBOSE | re.DOTALL,
)
_PART_OF_TOKEN = re.compile(
    r"hf_|api_org_|gh[pousr]_|_pat_|gl[a-z]+-|[spr]k[-_]|nvapi-|xai-|pplx-|gsk_|r8_|_v\d_|dapi|xox|xapp-|local-"
    r"|npm_|pypi-|AIza|ya29|GOCSPX|1//0|SG\.|8Q~|A[KSBC][IC]A|eyJ|slack|PRIVATE"
)
_URL_CREDENTIALS = re.compile(r"(?<=://)(?!git@|(?:[\w${}-]*:)?\$\{?\w+\}?@)[^\s/'\"]+(?=@)")

# --- Secrets and names, by what they stand behind ------------------------------------------------------

_ASSIGNMENT = re.compile(
    r"""
    (?: --(?P<option>[A-Za-z][\w-]*)[ ]+
      | (?<![\w.-])-{0,2}(?P<name>[A-Za-z_][\w.-]*)(?P<by>\\?["']?[ \t]*[=:][ \t]*) )
    (?:[rbf]?\\?(?P<quote>["']))?
    (?=(?P<value>(?(quote)(?:(?!\\?(?P=quote))[^\n])+|[^\s"'`&]+)))
    """,
    re.VERBOSE,
)
_SECRET_NAME = re.compile(
    r"(?:(?:api|access|private|account|secret|signing|encryption|licen[sc]e|auth|shared|storage|subscription)key(?:id)?"
    r"|secret|password|passwd|passphrase|credentials?|cookie|jwt|token)$"
)
_SECRET_WORDS = frozenset("secret password passwd passphrase".split())
_OF_A_TOKENIZER = frozenset(
    "pad eos bos unk cls sep mask special additional image audio video boi eoi stop start end prefix suffix"
    " new max min num per n first last next extra forced begin the a one each bad this single".split()
)
_HOST_NAME = re.compile(
    r"(?:master|main|head|rdzv)(?:addr|address|endpoint|processip)$|(?:host|hostname|nodename|fqdn)$"
)
_USER_NAME = re.compile(r"^(?:user|username|login|logname|sudouser|mailuser)$")
# An expression, or what another variable holds, is not said here.
_EXPRESSION = re.compile(
    r"""(?x)[$<({%[] | .*[(\[]$ | (?:self|os|\w*args?|\w*config|cfg|env|environ|settings|opts?|options
      |params|kwargs)\.
      | [A-Za-z_]*(?:token|key|secret|pass|pwd)[A-Za-z_]*[,;)]*$"""
)
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_DISTINCT_HOST = rf"(?=[A-Za-z._-]*[\d.-])(?=[\d.]*[A-Za-z]){_HOST}"
"""That a word alone is a host can be told from nothing."""
_NAMED = rf"(?=[\d.]*[A-Za-z]){_HOST}"  # and no address
_RULES = tuple(
    (kind, re.compile(pattern, re.VERBOSE | re.ASCII))
    for kind, pattern in (
        (
            "secret",
            r"""(?i)\bauthorization\\?["']?\s*[:=]\s*\\?["']?(?:(?:bearer|basic|token)\s+)?
              (?!(?:bearer|basic|token)\b)([^\s"'<$\\]+)
            | \bbearer\s+(?=\S*\d)([\w.~+/-]{12,}=*)
            | \blogin\s+\S+\s+password\s+([^\s<]+)
            | \bwandb[ .]login\b.{0,100}?(?<![0-9a-f])([0-9a-f]{40})\b
            | "auth\\?"\s*:\s*\\?"([^"\s\\]{8,})""",
        ),
        ("serial", r"""(?i)\bserial(?:[ _]?(?:number|no\.?))?["']?\s*[:=]\s*["']?((?=[\w-]*\d)[\w-]{6,})"""),
        (
            "user",
            r"""/(?:homes?|[Uu]sers)/([^/\s:'"<>$\\,;)\]]+) | (?:^|(?<=[\s:='"]))~([a-z_][\w-]*)(?=/)
            | \buid=\d+\(([\w.-]+)""",
        ),
        (
            "host",
            rf"""(?im)(?:^|(?<=[\s\]>]))({_HOST})(?=:\d+:\d+[ ]\[\d+\][ ]NCCL|[ \t]+slots=\d)
            | \[({_NAMED})\](?=:\d{{2,5}}\b)
            | \b(?:tcp|udp|ssh|grpc|nfs|ucx|ray|redis|etcd)://(?:[^\s/@]*@)?({_NAMED})
            | \bhttps?://(?:[^\s/@]*@)?((?=[\d-]*[a-z])[a-z0-9-]+)(?=[:/\s"']|$)
            | (?:(?<![\w.-])(?=[\w-]*[\d-])|(?<=://))
              ([a-z0-9][\w-]*(?:\.[\w-]+)*\.(?:local|internal|lan|corp|intranet))\b
            | \b(ip-\d+-\d+-\d+-\d+(?:\.[\w.-]*\w)?)
            | \b(?:srun:[ ]error:|JOB[ ]\d+[ ]ON|STEP[ ][\d.]+[ ]ON)[ ]({_HOST})
            | (?<=\$USER@)({_HOST})
            | \bssh[ ](?:-\S+[ ])*(?:[\w.$-]+@)?({_DISTINCT_HOST})
            | [ ](?:nfs4?|cifs|lustre|ceph)[ ](?://)?([a-z][\w.-]*)(?=[:/,@])""",
        ),
        ("email", r"(?<![\w.+/:$-])(?!git@)([\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,})\b"),
        (
            "mac",
            r"""(?<!\w)(?<!\w:)([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5,19})(?!:?\w)
            | (?<![\w-])((?=[\d-]*[A-Fa-f])[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){5})(?![\w-])""",
        ),
        (
            "gpu-id",
            rf"{_START}((?:MIG-)?(?:GPU|MIG)-[0-9A-Fa-f]{{8}}(?:-[0-9A-Fa-f]{{4,12}})*(?:/\d+/\d+)?)\b",
        ),
        ("uuid", r"(?<![\w-])([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})(?![\w-])"),
    )
)
_NODE_LIST = re.compile(
    r"""(?ix)(?:node_?list["']?[ \t]*[=:][ \t]*["']? | --nodelist[ ]+ | \bpdsh\b.*?[ ]-w[ ]+)
      ([a-z][\w.,[\]-]*[\w\]])
    | --(?:include|exclude)[= ]["']?((?=\S*[:@]\S*[-\d])[a-z][\w.,:@-]*\w)"""
)
_PUBLIC_DOMAIN = re.compile(
    r"(?i)(?:^|\.)(?:huggingface\.co|hf\.co|github(?:usercontent)?\.com|gitlab\.com|pytorch\.org|nvidia\.com|nvcr\.io"
    r"|pypi\.org|python(?:hosted)?\.org|anaconda\.(?:org|com)|docker\.(?:io|com)|quay\.io|ghcr\.io|wandb\.ai"
    r"|openai\.com|google(?:apis)?\.com|amazonaws\.com|windows\.net|modelscope\.cn)$"
)
_NODE_VARIABLE = re.compile(
    r"(NODELIST|NODENAME|_HOST|HOSTNAME|HOSTS|MASTER_ADDR|IPADDR|^SSH_(CLIENT|CONNECTION))$"
)

_TELLING = re.compile(r"[=:/@~.\[]|\d-|-\d|--|-[0-9a-f]{4}-|ssh |ON |serial|login")
"""Where there is none of these, nothing is given away by what stands around it."""

# --- Network addresses ---------------------------------------------------------------------------------

_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4 = re.compile(rf"(?:(?<![\w.])|(?<=\\[nrt]))(?:{_OCTET}\.){{3}}{_OCTET}(?![\w+]|\.\d)", re.ASCII)
# 10.3.5.147 is also a version of a CUDA wheel.
_BEFORE_VERSION = re.compile(
    r"(?i)(?:[=<>~!]=|[<>(]|\w-|\bv|versions?:?[ ]|\bcu\w+\W{1,4}|\b(?:nvidia|lib)[\w-]*\W{1,4})\s*$"
)
_BEFORE_ADDRESS = re.compile(
    r"(?i)(?:addr\w*|\bip|host|endpoint|server|peer|inet|remote|connect\w*(?: to)?|gateway|master"
    r"|\b(?:eth|ib|en[ops]|bond)\d\w*|//|@)[\"'\s:=<\[(]*$"
)
_AFTER_ADDRESS = re.compile(r"\]?:[\d/]|/\d|@|<\d|[\"']?, ?\d{4,5}\b| dev ")
_NOBODYS_ADDRESS = re.compile(r"127\.|0\.0\.0\.0|255\.|169\.254\.169\.254")
_STARTS_IPV6 = re.compile(r"(?i)(?:[23][0-9a-f]|f[cdef])[0-9a-f]{2}:")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]*:[0-9A-Fa-f]*:[0-9A-Fa-f:]*(?!\w)", re.ASCII)

_IDENTIFIERS = {(CheckResult, "name"), (CheckResult, "topic"), (TrialResult, "name"), (Proof, "trial")}

S = TypeVar("S", bound=msgspec.Struct)


class Redactor:
    """Replaces whole tokens; equal values get equal stand-ins within one redactor.

    Everything is read before anything is replaced: what one line gives away as a host is one in all lines."""

    def __init__(
        self,
        environ: Mapping[str, str],
        host_name: str,
        users: Iterable[str] = (),
        homes: Iterable[str] = (),
        addresses: Iterable[str] = (),
        domains: Iterable[str] = (),
    ) -> None:
        self._stand_ins: dict[Tuple[str, str], str] = {}
        self._counts = {"host": 1}  # the first is this one
        self._secrets: set[str] = set()
        self._hosts: set[str] = set()
        self._series: set[str] = set()
        self._versions: set[str] = set()
        for name, value in environ.items():
            # A path that a variable of such a name holds is a place, not a secret.
            named = SECRET_VARIABLE.search(name) or _kind_of(name) == "secret"
            if named and len(value) >= 6 and value.lower() not in _NOT_SECRET and not _is_place(value):
                self._secrets |= {value.strip(), quote(value, safe=""), json.dumps(value)[1:-1]}
                self._secrets |= {line.strip() for line in value.splitlines() if len(line) >= 16}
        places = {home.rstrip("/") for home in (environ.get("HOME", ""), *homes)} - {""}
        escaped = {quote(home, safe="") for home in places}
        self._home = _any_of(places | escaped, r"(?:(?<![\w.])|(?<=-[IL]))", r"(?![\w-]|\.\w)")
        given = (environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER"))
        known = {name for name in (*given, *users, *map(os.path.basename, places)) if _is_name(name)}
        self._user = _any_of(known, _START, "(?![A-Za-z0-9])")  # exact: adam is a user, Adam an optimizer
        self._own_host(host_name, domains)
        for address in addresses:
            self._number("address", address)
        self._look_everywhere()
        for name in sorted(environ):
            if _NODE_VARIABLE.search(name):
                for words in environ[name].split():
                    self._nodes(words)
                    self._value({"address": words})
        self._look_everywhere()

    def _own_host(self, name: str, domains: Iterable[str]) -> None:
        short, _, domain = name.partition(".")
        if _is_name(short):
            for each in (name, short):
                self._stand_ins["host", each.lower()] = "<host-1>"
                self._hosts.add(each)
            series = re.fullmatch(r"(.*[A-Za-z].*?)\d+([A-Za-z-]*)", short)
            if series and _is_name(series.group(1).strip("-_")):
                self._series.add(rf"{re.escape(series.group(1))}\d+{series.group(2)}")
        for each in (domain, *domains):
            if "." in each and not _PUBLIC_DOMAIN.search(each):
                self._series.add(rf"(?:[A-Za-z0-9-]+\.)*{re.escape(each)}")

    def _look_everywhere(self) -> None:
        """From now on what is known is replaced wherever it stands."""
        long = {secret for secret in self._secrets if len(secret) >= 16}
        self._long_secret = _any_of(long)
        self._secret = _any_of(self._secrets - long, "(?<![A-Za-z0-9])", "(?![A-Za-z0-9])")
        hosts = [*sorted(self._series), *map(re.escape, sorted(self._hosts, key=len, reverse=True))]
        self._host = (
            re.compile(rf"(?i)(?<![\w.<])(?:{'|'.join(hosts)})(?!\w)", re.ASCII) if hosts else _any_of(())
        )
        self._replaced = functools.lru_cache(maxsize=None)(self._read)

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
                self._hosts.add(value)
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

    def _read(self, text: str) -> str:
        """The text without what is known or can be told; what is told is known henceforth."""
        text = self._secret.sub("<secret>", self._long_secret.sub("<secret>", text))
        if _PART_OF_TOKEN.search(text):
            text = _TOKEN.sub("<token>", text)
        if not _TELLING.search(text):  # one word, most often
            return self._host.sub(self._host_found, self._user.sub(_user_found, text))
        text = self._assignments(_URL_CREDENTIALS.sub("<credentials>", text))
        text = self._user.sub(_user_found, self._home.sub("~", text))
        for kind, pattern in _RULES:
            text = pattern.sub(functools.partial(self._found, kind), text)
        text = _NODE_LIST.sub(self._nodes_found, text)
        text = self._host.sub(self._host_found, text)
        return _IPV6.sub(self._ipv6_found, _IPV4.sub(self._ipv4_found, text))

    def _assignments(self, text: str) -> str:
        parts, end = [], 0
        for match in _ASSIGNMENT.finditer(text):
            kind = _kind_of(match["name"] or match["option"])
            if kind is None or match.start("value") < end:
                continue
            by, quoted = match["by"] or "", bool(match["quote"])
            sure = "=" in by or (quoted and by[:1] in ("\\", '"', "'"))
            value = match["value"] if quoted else match["value"].rstrip(",;)]}")
            parts += [text[end : match.start("value")], self._assigned(kind, value, sure, quoted)]
            end = match.start("value") + len(value)
        return "".join([*parts, text[end:]])

    def _assigned(self, kind: str, value: str, sure: bool, quoted: bool) -> str:
        """What a variable, a key or an option of a telling name holds, without it; unless `sure`, it may be
        prose."""
        if kind == "secret":
            distinct = bool(re.search(r"\d|[a-z][A-Z]", value))
            open_ = len(value) < 4 or value.lower() in _NOT_SECRET or _is_place(value) or value[0] in "$<{"
            if (
                open_
                or not (sure or (distinct and len(value) >= 6))
                or (not quoted and _EXPRESSION.match(value))
            ):
                return value
            if distinct and len(value) >= 8:
                self._secrets.add(value)
            return "<secret>"
        name = re.match(
            _HOST if kind == "host" and sure else _DISTINCT_HOST if kind == "host" else r"[\w.-]+", value
        )
        after = value[name.end() : name.end() + 1] if name else ""
        if not name or not (sure or kind == "host") or after in ("(", "[") or _EXPRESSION.match(value):
            return value
        if _IPV4.fullmatch(name.group()):
            return value
        return self._number(kind, name.group()) + value[name.end() :]

    def _found(self, kind: str, match: re.Match[str]) -> str:
        before, value, after = _around(match)
        return before + ("<secret>" if kind == "secret" else self._number(kind, value)) + after

    def _host_found(self, match: re.Match[str]) -> str:
        return self._number("host", match.group())

    def _nodes_found(self, match: re.Match[str]) -> str:
        before, value, after = _around(match)
        self._nodes(value)
        return before + (self._number("hosts", value) if "[" in value else value) + after

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
        first, second = (int(octet) for octet in value.split(".")[:2])
        if _NOBODYS_ADDRESS.match(value):
            return value
        told = _BEFORE_ADDRESS.search(before) or _AFTER_ADDRESS.match(after)
        if not (told or ("address", value) in self._stand_ins):
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
        self._read(text)
        self._look_everywhere()
        return self._replaced(text)

    def value(self, value: Any) -> Any:
        """The same for every string in a JSON value. Of keys only secrets: names of packages stay."""
        self._value(value)
        self._look_everywhere()
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
        return _TOKEN.sub("<token>", self._secret.sub("<secret>", self._long_secret.sub("<secret>", key)))

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
        if isinstance(value, Fix):  # a shell knows ~ only at the beginning of a word
            changes["preview"] = re.sub(r"(?<=[=\"/])~(?=/|\b)|(?<=-[IL])~(?=/)", "$HOME", changes["preview"])
        return msgspec.structs.replace(value, **changes)


def _any_of(values: Iterable[str], before: str = "", after: str = "") -> re.Pattern[str]:
    """The values where they stand between these, a longer one before its parts."""
    found = sorted((re.escape(value) for value in values if value), key=lambda it: (-len(it), it))
    return re.compile(f"{before}(?:{'|'.join(found)}){after}" if found else r"(?!)")


def _around(match: re.Match[str]) -> Tuple[str, str, str]:
    """What stands before the group that matched, the group, what stands behind it."""
    start, end = (place - match.start() for place in match.span(match.lastindex or 0))
    return match.group()[:start], match.group()[start:end], match.group()[end:]


def _user_found(match: re.Match[str]) -> str:
    text, start, end = match.string, match.start(), match.end()
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    if before in ("_", ".") or after == "_":  # a part of a name, unless of a path's
        word = re.search(r"\S*$", text[max(0, start - 256) : start])
        if word is None or "/" not in word.group():
            return match.group()
    return "${USER}" if after == "_" else "$USER"


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
