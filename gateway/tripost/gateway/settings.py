"""the configuration's shape: every key, its type, its default

What is not here is not a key. Durations are seconds and sizes octets once they
are read. docs/configuration.md says what each key does.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from tripost.gateway.windows import NO_LIMIT, Rate

Duration = Annotated[float, "duration"]
Size = Annotated[int, "size"]
RateText = Annotated[Rate, "rate"]
ByteRate = Annotated[int, "octets a second"]
Processes = Annotated[int, "processes"]
Path = Annotated[str, "path"]  # counts from the file in which it is written


AUTO = 0  # of processes


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    service: Literal["smtp", "submission", "lmtp", "pop3", "imap", "monitor"]
    address: str
    tls: Literal["", "none", "starttls", "implicit"] = ""  # starttls where [tls] is, else none
    require_tls: bool = False
    proxy_protocol: bool = False
    xclient: list[str] = []


class TlsName(msgspec.Struct, frozen=True, kw_only=True):
    names: list[str]
    certificate: Path
    key: Path


class TlsTable(msgspec.Struct, frozen=True, kw_only=True):
    certificate: Path = ""
    key: Path = ""
    minimum: Literal["1.2", "1.3"] = "1.2"
    sni: list[TlsName] = []


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    networks: list[str] = []


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    file: Path = ""  # state/accounts
    backend: str = "file"
    mechanisms: list[Literal["PLAIN", "LOGIN", "SCRAM-SHA-256"]] = msgspec.field(
        default_factory=lambda: ["PLAIN", "LOGIN", "SCRAM-SHA-256"]
    )
    cleartext: Literal["never", "loopback", "always"] = "never"
    pop3_imap_cleartext: Literal["never", "loopback", "always"] = "loopback"


class Relay(msgspec.Struct, frozen=True, kw_only=True):
    networks: list[str] = msgspec.field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])
    domains: list[str] = []


class Mailbox(msgspec.Struct, frozen=True, kw_only=True):
    """One mailbox; what is None is as in [local]."""

    quota: Size | None = None
    quota_messages: int | None = None
    retention: Duration | None = None
    one_shot: bool = False
    max_messages: int = 0


class Local(msgspec.Struct, frozen=True, kw_only=True):
    domains: list[str] = []  # the hostname
    postmaster: str = ""
    separator: str = "+"
    quota: Size = 0
    quota_messages: int = 0
    quota_over: Literal["defer", "reject"] = "defer"
    retention: Duration = 0.0
    catch_all: dict[str, str] = {}
    aliases: dict[str, list[str]] = {}
    mailbox: dict[str, Mailbox] = {}


TlsLevel = Literal["none", "may", "encrypt", "verify"]


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    domain: str
    sender: str = "*"
    to: str
    auth_file: Path = ""
    tls: Literal["", "none", "may", "encrypt", "verify"] = ""  # as in [delivery.default]
    source: str = ""


class Smtp(msgspec.Struct, frozen=True, kw_only=True):
    bare_newlines: Literal["reject", "normalize"] = "reject"
    greet_delay: Duration = 0.0
    hops: int = 100


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    message_size: Size = 50 << 20
    recipients: int = 1000
    connections: int = 10_000
    client_connections: int = 50
    network_connections: int = 0
    client_rate: RateText = NO_LIMIT
    client_messages: RateText = NO_LIMIT
    account_messages: RateText = NO_LIMIT
    account_recipients: RateText = NO_LIMIT
    errors: int = 20
    junk_commands: int = 100
    auth_failures: RateText = Rate(10, 600.0)
    auth_ban: Duration = 900.0
    login_delay: Duration = 0.0
    command_timeout: Duration = 300.0
    data_timeout: Duration = 180.0
    minimum_rate: ByteRate = 100
    lag: Duration = 0.25
    memory: Size = 256 << 20


class Spool(msgspec.Struct, frozen=True, kw_only=True):
    segment_size: Size = 64 << 20
    inline: Size = 128 << 10
    min_free: Size = 1 << 30
    min_free_inodes: int = 10_000
    messages: int = 0  # no limit
    bytes: Size = 0  # no limit
    unannounced: Size = 256 << 20


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """How one destination is treated; what is None is as in [delivery.default], and there as delivery has it."""

    connections: int | None = None  # 20; 100 for a route with a host
    rate: RateText | None = None
    connection_rate: RateText | None = None
    messages_per_connection: int | None = None
    recipients_per_message: int | None = None
    idle: Duration | None = None
    connect_timeout: Duration | None = None
    tls: TlsLevel | None = None
    rollup: bool | None = None
    source: str | None = None
    ip: Literal["any", "4", "6", "prefer4"] | None = None
    probe_first: Duration | None = None
    probe_longest: Duration | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    port: int = 25
    max_connections: int = 2000
    default: Destination = Destination()
    destination: dict[str, Destination] = {}


class SourceAddress(msgspec.Struct, frozen=True, kw_only=True):
    ip: str
    name: str = ""  # the hostname
    weight: int = 1


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    addresses: list[SourceAddress]


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    first: Duration = 300.0
    factor: float = 2.0
    longest: Duration = 14_400.0
    jitter: float = 0.2
    schedule: list[Duration] = []
    expire: Duration = 432_000.0
    warn: Duration = 14_400.0


class Dsn(msgspec.Struct, frozen=True, kw_only=True):
    original: Literal["headers", "full"] = "headers"
    max_original: Size = 50 << 10
    double_bounce: Literal["postmaster", "drop"] = "postmaster"
    templates: Path = ""


class Dns(msgspec.Struct, frozen=True, kw_only=True):
    nameservers: list[str] = []  # the system's


class Events(msgspec.Struct, frozen=True, kw_only=True):
    file: Path = ""  # stderr
    format: Literal["auto", "text", "json", "off"] = "auto"


class History(msgspec.Struct, frozen=True, kw_only=True):
    keep: Duration = 604_800.0  # after the end; 0: no history
    size: Size = 1 << 30


class Admin(msgspec.Struct, frozen=True, kw_only=True):
    group: str = ""  # whose members may steer the gateway, beside root and its own user
    grace: Duration = 300.0  # in which `queue undo` works


class Monitor(msgspec.Struct, frozen=True, kw_only=True):
    token_file: Path = ""  # who has it may act
    read_token_file: Path = ""  # who has it may look
    origins: list[str] = []  # beside loopback: https://monitor.example.com


class Lifecycle(msgspec.Struct, frozen=True, kw_only=True):
    drain: Duration = 30.0


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway; `accounts_file` and `state` are absolute once loaded."""

    hostname: str = ""
    state: Path = ""
    user: str = ""  # dropped to after binding as root
    group: str = ""  # the user's own
    processes: Processes = 1  # of ingress, and as many of delivery; AUTO: by the machine's cores
    include: list[str] = []  # patterns of files, read after this one
    listen: list[Listen] = []
    tls: TlsTable = TlsTable()
    proxy: Proxy = Proxy()
    auth: Auth = Auth()
    relay: Relay = Relay()
    local: Local = Local()
    route: list[RouteTable] = []
    smtp: Smtp = Smtp()
    limits: Limits = Limits()
    spool: Spool = Spool()
    delivery: Delivery = Delivery()
    sources: dict[str, Sources] = {}
    retry: Retry = Retry()
    dsn: Dsn = Dsn()
    dns: Dns = Dns()
    events: Events = Events()
    history: History = History()
    admin: Admin = Admin()
    monitor: Monitor = Monitor()
    lifecycle: Lifecycle = Lifecycle()

    @property
    def accounts_file(self) -> str:
        return self.auth.file
