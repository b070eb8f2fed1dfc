"""what each key of the configuration is for, in words

docs/configuration.md, `tripost config schema` and `tripost init` are made from this and from the types. A test holds
every key to having its words here, and every line here to being of a key.

Form     `[table]`, below it what is to be said of the table ("> "), then a line for each key: name | default, where it
         is no plain value | words. Lines that are indented go on with the one before.
"""

from __future__ import annotations

import msgspec

TEXT = """\
[]
hostname | the machine's name | greeting, EHLO, Received lines
state | `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/tripost` | holds `spool/`, `mail/`, `accounts`, and the sockets of
    [operating](operating.md) and [sendmail](sendmail.md)
user | none | started as root, without systemd: who to be once the `[[listen]]` addresses are bound. Keys and accounts
    must be readable for that user
group | the user's own | likewise
processes | | `n`, or `"auto"` (half of the cores; below 4 none to deliver): so many processes take mail
    in, and so many deliver it, around one that owns the queue; 1: one process for all ([processes](processes.md))
include | | files to read after this one, as `["conf.d/*.toml"]`, by name: single values and lists override, tables
    merge, arrays of tables (`[[listen]]`) append. Only the main file includes
[listen]
service | | what is spoken there; `submission`: for accounts only, as themselves
address | | `ip:port`, `[ipv6]:port` or `unix:/path`; port 0 takes a free one; a Unix socket has mode 0660
tls | `starttls` where `[tls]` is set, else `none` | `implicit`: TLS from the first octet; needs `[tls]`
require_tls | | nothing but the way to TLS is taken in plain text
proxy_protocol | | connections begin with a PROXY header (v1 or v2), within 5 s; only from `[proxy] networks`
xclient | | networks of clients that may say for whom they speak (XCLIENT, XFORWARD)
[tls]
> The built-in settings use a self-signed certificate of their own, kept in `tls/` in state. `tripost check` warns of
> keys that everybody can read, and of certificates that end soon or name another host.
certificate | | PEM; the chain below the certificate in the same file; taken anew within 30 s of a change
key | | its key, PEM, without a password
minimum | | older TLS is refused
sni | | `[[tls.sni]]`: certificates for clients that ask for other names
[tls.sni]
names | | `mail.x.example`, `*.x.example`
certificate | | as in `[tls]`
key | | as in `[tls]`
[proxy]
networks | | who may send PROXY headers
[auth]
file | `accounts` in state | who there is; a passwd-file, written by `tripost user`: [accounts](accounts.md)
backend | | who checks passwords: `file`, the file's verifiers; `command:/path`, a program; `unix:/path`, a service
mechanisms | | what AUTH offers; SCRAM-SHA-256 only where some account can
cleartext | | SMTP: from where passwords are taken outside of TLS
pop3_imap_cleartext | | the same for POP3 and IMAP
[relay]
networks | | clients that may send anywhere
domains | | sent on to from anyone
[local]
domains | the hostname | whose users are ours
postmaster | | gets `postmaster` at every local domain
separator | | `user+detail` is `user`, in its folder `Detail` where there is one; empty: none
quota | `0` (none) | octets in a mailbox; an account's `userdb_quota_rule` and `[local.mailbox]` come first
quota_messages | 0 (none) | messages in a mailbox
quota_over | | a full mailbox: 452 4.2.2, or 552 5.2.2
retention | `0` (for ever) | older mail is removed for good
catch_all | | domain = address: gets what is addressed to nobody in that domain
aliases | | `"sales@machin.com" = ["marc@machin.com", "x@elsewhere.example"]`: who gets the mail, here or anywhere;
    other aliases too. An alias comes before a user of the same name, and may name that user. The sender is kept
mailbox | | `[local.mailbox."box@machin.com"]`: what is special about one
[local.mailbox.NAME]
quota | as in `[local]` | for this mailbox
quota_messages | as in `[local]` | for this mailbox
retention | as in `[local]` | for this mailbox
one_shot | | what was fetched whole is removed at QUIT
max_messages | 0 (none) | so many stay: a new message pushes out the oldest, for good
[route]
> The first that fits wins; what none fits goes by MX.
domain | | `x.example`, `*.suffix` (not the suffix itself), `*`
sender | | for mail of these senders only: `u@x.example`, `*@x.example`, `*@*.suffix`; `<>` is mail without one
    (reports)
to | | `mx`, `local`, `discard`, `reject`, `smtp://host[:port][,host2[:port]…]`, `lmtp://…`, `lmtp:///path`; of several
    hosts the first that can be spoken to
tls | as in `[delivery.default]` | for this route
source | as in `[delivery.default]` | a pool of `[sources]`
auth_file | | holds `user:password`: the host wants AUTH (SCRAM-SHA-256; PLAIN and LOGIN under TLS or on loopback only)
[smtp]
bare_newlines | | CR or LF alone in a message: 554 5.6.0 and the connection is closed, or they become CRLF and an event
    says so
greet_delay | | how long strangers wait for the greeting; who speaks before it gets 554 5.5.1; at most `60s`
hops | | more Received lines than this: 554 5.4.6
[limits]
message_size | | larger: 552 5.3.4
recipients | | in one message; more: 452 4.5.3
connections | | all services together; more: 421
client_connections | | from one address (IPv6: /64); relay networks are exempt from this and the next two
network_connections | 0 (none) | from one IPv4 /24 or IPv6 /64
client_rate | none | new connections of one address, as `"10/s"`; more: refused, with the time after which one is taken
client_messages | none | messages of one address; more: 450 4.7.1, with the time after which one is taken
account_messages | none | likewise messages of one account, from wherever
account_recipients | none | likewise recipients of one account
errors | | refused commands, then 421
junk_commands | | commands that lead nowhere, then 421
auth_failures | | wrong passwords of one address (IPv6: /64), and for one account, over all services
auth_ban | | how long no login is taken after that
login_delay | | POP3: between two logins of one account; sooner: `[LOGIN-DELAY]`
command_timeout | | silence before 421
data_timeout | | silence inside of a message
lag | | how long new SMTP and LMTP connections may wait to be let in. When they stand in line for longer, those that
    waited longer than half of it get 421, until all are let in sooner: [overload](smtp.md#overload); `"0s"`: never
minimum_rate | | a message that comes more slowly, after 30 s: 421; `"0"`: no limit
memory | | all messages under way together have so much in memory; beyond it they go to files at once
[spool]
segment_size | | when a new segment of the log is begun; at least `64KiB`
inline | | larger contents have their own file; at most `1MiB`
min_free | | with less room on the disk, mail gets 452 4.3.1
min_free_inodes | | likewise for inodes
unannounced | | with several [processes](processes.md): octets that one of them may have taken in and the queue's owner
    not; beyond it, new mail gets 452 4.3.1
messages | 0 (none) | as many queued messages, and new mail gets 452 4.3.1
bytes | `0` (none) | likewise for the octets of all queued messages together
[delivery]
port | | for mx routes
max_connections | | to all destinations together
default | | how every destination is treated
destination | | `[delivery.destination."x"]`: the same keys for one destination
[delivery.default]
connections | 20; 100 for a route with a host | at once, to one site; never more. How many of them are used is found
    out: [delivery](delivery.md)
rate | none | messages (transactions), as `"50/s"`; evenly spread, never exceeded in any such span, over restarts too
connection_rate | none | likewise for new connections
messages_per_connection | 100 | at most; of 10 or more up to a fifth less, by chance
recipients_per_message | 100 | in one transaction
idle | `5s` | how long a connection waits for more mail
connect_timeout | `30s` | for one address
tls | `may` | STARTTLS: never; where it works; always; always and with a certificate that names the host. A host whose
    TLS fails at `may` is spoken to in plain text for an hour
rollup | true | domains with the same best MX hosts are one site, with one set of limits and connections
ip | `any` | address families; of two the one that answers first
source | the system chooses | a pool of `[sources]`
probe_first | `1m` | first pause of a destination that cannot be spoken to, ±20 %
probe_longest | `30m` | pauses double up to this
[delivery.destination.NAME]
> The keys of `[delivery.default]` for one destination: a recipient domain or the first host of a route, else an MX
> host, else a suffix of one (`"*.google.com"`). A domain with settings of its own is a site of its own.
[sources.NAME]
> Addresses of this machine to send from, chosen by weight for every connection, of a family that the host has:
> `addresses = [{ ip = "192.0.2.1", name = "out1.machin.com", weight = 1 }]`.
addresses | | at least one with a weight
[sources.NAME.addresses]
ip | | IPv4 or IPv6
name | the hostname | what EHLO says
weight | | 0: not used
[retry]
first | | after the first 4xx to a message
factor | | each delay is so much longer
longest | | no delay is longer
jitter | | ± this part of each delay, 0 to 1
schedule | | a list of delays instead; its last entry repeats
expire | | then the sender is told; never before one attempt since the start
warn | | then the sender is told, once, that it is not delivered yet; `"0"`: never
[dsn]
original | | what a report of a failure quotes where the sender did not say (RET)
max_original | | of a larger message the header only, up to this
double_bounce | | who is told when a report, or other mail without a sender, fails: `[local] postmaster`, or nobody
templates | our own words | a folder with `failed.txt` `delayed.txt` `relayed.txt` `delivered.txt`: a line `Subject:
    …`, an empty line, text with `{recipients} {date} {until} {hostname}`; read at the start
[dns]
nameservers | the system's | `ip:port`
[events]
file | stderr | opened anew at SIGHUP ([events](events.md))
format | | `auto`: text on a terminal, fields in systemd's journal, else JSON
[history]
keep | | how long after its end a message is told of by `tripost history`; `0s`: nothing is kept, and no last logins
size | | of its database, at least `16MiB`; where it would grow over it, the messages that ended first go
[admin]
group | | whose members may ask and steer the gateway ([operating](operating.md)), beside root and its own user
grace | | so long `tripost queue undo` takes an operator's action back; what ends messages takes effect only then
[monitor]
token_file | | its first line is the token that may look and act: at least 16 characters, closed to other users
read_token_file | | its first line is a token that may look
origins | | by which names, beside those of loopback, the page is reached: `https://monitor.example.com`
[lifecycle]
drain | | time for what is under way at SIGTERM; a second signal stops at once
"""


class Help(msgspec.Struct, frozen=True):
    """`default` only where it is no plain value."""

    text: str
    default: str = ""


def _read(text: str) -> tuple[dict[str, Help], dict[str, str]]:
    """Key → help, and table → what is said of it."""
    helps: dict[str, Help] = {}
    tables: dict[str, str] = {}
    table = ""
    for line in text.replace("\n    ", " ").splitlines():
        if line.startswith("["):
            table = line.strip("[]")
            tables[table] = ""
        elif line.startswith("> "):
            tables[table] = f"{tables[table]} {line[2:]}".strip()
        else:
            name, default, words = (part.strip() for part in line.split("|", 2))
            helps[f"{table}.{name}".lstrip(".")] = Help(words, default)
    return helps, tables


HELP, TABLES = _read(TEXT)


def help_of(key: str) -> Help | None:
    """Of a key as `[table]` and name: "listen.address", "local.mailbox.NAME.quota"."""
    same = key.replace("delivery.destination.NAME.", "delivery.default.")
    return HELP.get(key) or HELP.get(same)
