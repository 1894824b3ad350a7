"""Every bound on what comes from outside, in one place.

A `Limit` is a number with its reason. `docs/security.md` has a table that is
generated from this module (`make docs`), and each time a limit is hit the
counter `registrator_limited_total` rises with the limit's name as its label.

The limits are generous: a setup that real people run meets none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound: `value` in `unit`, why it is needed, and what happens beyond it."""

    name: str
    value: int
    unit: str
    why: str
    beyond: str


# Labels and environment ---------------------------------------------------

SERVICE_KEYS = Limit(
    "service_keys",
    1024,
    "keys",
    "SERVICE_* labels and variables of one container; 100 ports have 10 each",
    "labels come before the environment; the others are left out",
)
SERVICE_KEY_OCTETS = Limit(
    "service_key_octets", 256, "octets", "the name of one SERVICE_* key", "the key is left out"
)
SERVICE_VALUE_OCTETS = Limit(
    "service_value_octets", 16384, "octets", "the value of one SERVICE_* key", "the key is left out"
)
SERVICE_OCTETS = Limit(
    "service_octets",
    262144,
    "octets",
    "all SERVICE_* keys of one container with their values",
    "labels come before the environment; the others are left out",
)
INSTANCES = Limit(
    "instances",
    100,
    "instances",
    "one container must not fill the catalog",
    "ports that labels name come first, then published ones, each by number; the others are left out",
)
NAMES = Limit(
    "names", 16, "names", "each name of a port is an instance of its own", "the first ones are registered"
)
NAME_OCTETS = Limit(
    "name_octets", 255, "characters", "a name before it is fitted into a DNS label", "the rest is cut off"
)
ID_OCTETS = Limit("id_octets", 255, "octets", "a SERVICE_ID", "the default id is used")
TAGS = Limit(
    "tags",
    64,
    "tags",
    "tags of one instance; as many again from `--tags`",
    "the first ones are registered",
)
TAG_OCTETS = Limit("tag_octets", 1024, "octets", "one tag", "the tag is left out")
SAID_OF_INSTANCES = Limit(
    "said_of_instances",
    262_144,
    "characters of tags and metadata of all instances of one container",
    "each instance has its own, and lists of instances show all of them",
    "the remaining ports of the container are left out",
)
ADDRESSES = Limit(
    "addresses",
    4096,
    "addresses",
    "each instance holds its address on every network of its container",
    "the remaining ports of the container are left out",
)
CHECK_HEADERS = Limit(
    "check_headers", 64, "values", "a SERVICE_CHECK_HEADER is copied to each check", "the header is left out"
)
PROBLEMS = Limit(
    "problems",
    64,
    "problems",
    "what is refused of one container is remembered, so that it is logged once",
    "the others are not logged",
)

# Templates ----------------------------------------------------------------

TEMPLATE_OCTETS = Limit(
    "template_octets", 4096, "octets", "the text of a template", "what it is for is left out"
)
TEMPLATE_RESULT = Limit(
    "template_result",
    16384,
    "octets",
    "the result of a template, and every text on the way to it",
    "what the template is for is left out",
)
TEMPLATE_LIST = Limit(
    "template_list",
    1024,
    "elements",
    "a list on the way to the result; of the environment the first ones can be used",
    "what the template is for is left out",
)
TEMPLATE_STEPS = Limit(
    "template_steps",
    4096,
    "steps",
    "work of all templates of a container: each word is a step, and each 256 octets that a function handles",
    "what the template is for is left out",
)
TEMPLATE_MATCH = Limit(
    "template_match",
    256,
    "octets",
    "the text that an operator's pattern in a template is matched against",
    "a longer text does not match",
)

# DNS ----------------------------------------------------------------------

DNS_WAITING = Limit(
    "dns_waiting",
    256,
    "UDP queries that wait for Consul or a recursor, of containers, and as many of all other askers, "
    "on each address",
    "each is a task with its packet",
    "the asker with the most gets SERVFAIL for its oldest one; others' queries are not affected",
)
DNS_REPLY = Limit(
    "dns_reply",
    1232,
    "octets",
    "A UDP query's address may be forged, and its reply then goes to a victim.",
    "The reply is cut and says so (TC); the asker comes again over TCP, or with a cookie (RFC 7873).",
)
DNS_PROVEN_REPLY = Limit(
    "dns_proven_reply",
    4096,
    "octets",
    "A UDP reply to an asker that has proved its address by a cookie; longer ones are lost as fragments.",
    "The reply is cut and says so (TC); the asker comes again over TCP.",
)
DNS_PACKETS = Limit(
    "dns_packets",
    20_000,
    "packets",
    "Queries of octets that came before are answered without being read.",
    "What nobody asked for lately is read again when it comes.",
)
DNS_REPLIES = Limit(
    "dns_replies",
    32 * 2**20,
    "octets",
    "Rendered replies are kept; names, types, sizes and flags make many of them.",
    "Replies that were asked for once go first, then what nobody asked for lately: it is rendered again.",
)
DNS_MISSING = Limit(
    "dns_missing",
    1000,
    "replies",
    "Names that do not exist are without number. Their replies are kept apart from the others.",
    "The oldest of them go.",
)
DNS_VIEWS = Limit(
    "dns_views",
    32,
    "kinds of asker a service",
    "What a large service comes to for askers on the same networks is worked out once and kept.",
    "What was worked out first is forgotten, and worked out again when it is asked for.",
)
DNS_CONNECTIONS = Limit(
    "dns_connections",
    256,
    "connections an address",
    "Connections may come and ask nothing, or not read what they asked for.",
    "The one that has been idle longest is closed; where none is idle the newcomer is.",
)
DNS_CONNECTIONS_EACH = Limit(
    "dns_connections_each",
    16,
    "connections a client",
    "One client must not take the places of the others.",
    "The client's own that has been idle longest is closed; where none is idle its newcomer is.",
)
DNS_UNREAD = Limit(
    "dns_unread",
    4 * 2**20,
    "octets an address",
    "A client may ask over TCP and not read the replies, of up to 65,535 octets.",
    "The connection that has not been read for the longest time is closed; any is after 10 s.",
)
DNS_OPTIONS = Limit(
    "dns_options",
    32,
    "EDNS options a query",
    "A packet of 65,535 octets holds 16,000 of them.",
    "The options after these are not read: a cookie among them does not count.",
)

# Recursion ----------------------------------------------------------------

RECURSIONS = Limit(
    "recursions",
    128,
    "questions for recursors under way, for this node's containers, and as many for all other askers",
    "a server or a domain that never answers must not use up sockets and memory, nor the turns of others",
    "the asker with the most loses its oldest question: SERVFAIL; others' questions are not affected",
)
RECURSIONS_TCP = Limit(
    "recursions_tcp",
    16,
    "connections to recursors for truncated replies, for this node's containers, and as many for all others",
    "resolvers take few TCP connections of one client",
    "the asker with the most loses its oldest one: the next recursor is asked, or SERVFAIL",
)

# HTTP ---------------------------------------------------------------------

HTTP_CONNECTIONS = Limit(
    "http_connections",
    512,
    "connections",
    "each takes a descriptor and memory",
    "the client with the most loses an idle one, else its oldest, to a client with fewer; "
    "who has the most itself is answered 503",
)
HTTP_CLIENT_CONNECTIONS = Limit(
    "http_client_connections",
    400,
    "connections of one client (an IPv4 address, an IPv6 /64)",
    "one client must not take all places",
    "its longest idle connection is closed; where none is idle, the new one is answered 503",
)
HTTP_HEALTH_CONNECTIONS = Limit(
    "http_health_connections",
    64,
    "connections beyond these two limits",
    "`/livez` and `/readyz` must answer when all other places are taken",
    "the client with the most of them loses its oldest; every other path is answered 503 there",
)
HTTP_HEAD = Limit(
    "http_head",
    16_384,
    "octets of request line and headers",
    "an unfinished request stays in memory",
    "431, and the connection is closed",
)
HTTP_LINE = Limit(
    "http_line", 8190, "octets of the request line, and of one header", "parsers read it as a whole", "400"
)
HTTP_HEADERS = Limit("http_headers", 64, "headers of a request", "each is an object", "400")
HTTP_UNFINISHED = Limit(
    "http_unfinished",
    2_097_152,
    "octets of all unfinished requests together",
    "many clients can send half a request each",
    "the client with the most of them loses its largest",
)
HTTP_HEAD_TIME = Limit(
    "http_head_time",
    10,
    "seconds for the whole of request line and headers",
    "half a request keeps its place",
    "the connection is closed",
)
HTTP_IDLE = Limit(
    "http_idle",
    75,
    "seconds without a request",
    "a silent client keeps its place",
    "the connection is closed",
)
HTTP_BODY = Limit(
    "http_body",
    65_536,
    "octets of a request body, which is read and thrown away",
    "reading costs CPU",
    "the connection is cut",
)
HTTP_STARTS = Limit(
    "http_starts",
    4,
    "requests that begin in one turn of the event loop",
    "DNS queries come before HTTP requests",
    "the others begin in the next turns",
)
HTTP_RENDERS = Limit(
    "http_renders",
    2,
    "replies that are rendered at a time",
    "a long list costs CPU and memory",
    "the others wait, each client in its turn",
)
HTTP_QUEUE_TIME = Limit(
    "http_queue_time", 10, "seconds of waiting for that turn", "clients give up", "503 with Retry-After"
)
HTTP_REPLY = Limit(
    "http_reply",
    16_777_216,
    "characters of a reply's list",
    "a reply is in memory as a whole, several times over for a moment",
    "503; a `?filter=` or a single name asks for less",
)
HTTP_UNSENT = Limit(
    "http_unsent",
    16_777_216,
    "octets of rendered replies that clients have not taken",
    "a client that does not read keeps its reply in memory",
    "no further reply is rendered; the client with the most loses its largest when others wait for a second",
)
HTTP_CLIENT_UNSENT = Limit(
    "http_client_unsent",
    4_194_304,
    "octets of rendered replies that one client has not taken",
    "one client must not take all of that memory",
    "no further reply is rendered for this client",
)
HTTP_SEND_TIME = Limit(
    "http_send_time",
    10,
    "seconds for taking the next 64 KB of a reply",
    "a client that does not read keeps its reply in memory",
    "the connection is cut",
)
HTTP_WAITS = Limit(
    "http_waits",
    384,
    "blocking queries",
    "each keeps a connection",
    "the client with the most has its oldest answered early for a client with fewer; "
    "who has the most itself is answered 503",
)
HTTP_CLIENT_WAITS = Limit(
    "http_client_waits",
    320,
    "blocking queries of one client",
    "one client must not take all of them",
    "503 with Retry-After",
)
HTTP_STREAMS = Limit(
    "http_streams",
    64,
    "readers of `/events`",
    "each keeps a connection, and every change is sent to all",
    "the client with the most loses its oldest to a client with fewer; "
    "who has the most itself is answered 503",
)
HTTP_CLIENT_STREAMS = Limit(
    "http_client_streams",
    32,
    "readers of `/events` of one client",
    "one client must not take all of them",
    "503 with Retry-After",
)
HTTP_DURATION = Limit(
    "http_duration", 64, "characters of a duration, as in `?wait=`", "parsers read it as a whole", "400"
)
HTTP_VALUES = Limit(
    "http_values", 64, "`tag` and `node-meta` parameters each", "each is compared with every instance", "400"
)
FILTER_LENGTH = Limit(
    "filter_length", 2000, "characters of a `?filter=`", "it is parsed in one turn of the event loop", "400"
)
FILTER_DEPTH = Limit(
    "filter_depth", 20, "parentheses and `not`s within one another", "the parser calls itself", "400"
)
FILTER_MATCHES = Limit(
    "filter_matches", 64, "comparisons in a `?filter=`", "each is made for every instance", "400"
)
HTTP_NEAREST = Limit(
    "http_nearest",
    2000,
    "names that an unknown one is compared with (names of 64 characters at most)",
    "how alike two names are takes long to find out",
    "the error proposes fewer names",
)

# Health checks ------------------------------------------------------------

CHECKS_OF_CONTAINER = Limit(
    "checks_of_container",
    100,
    "checks",
    "every check costs a connection at each interval",
    "the checks after these are left out, with one line in the log",
)
CHECK_TEXT = Limit(
    "check_text",
    8192,
    "characters",
    "a check's body, header or command is sent again and again",
    "it is left out, with one line in the log",
)
CHECK_PATH = Limit(
    "check_path",
    2048,
    "characters",
    "a check's path, or gRPC service, is stored and shown with each of its instances",
    "that check is left out, with one line in the log",
)
CHECK_INTERVAL = Limit(
    "check_interval",
    86400,
    "s",
    "a check that runs less than once a day checks nothing",
    "this interval is used, with one line in the log",
)
CHECK_TIMEOUT = Limit(
    "check_timeout",
    120,
    "s",
    "a check that never gets an answer holds a connection this long; never more than its interval",
    "the longest timeout that is allowed is used, with one line in the log",
)
CHECKS_AT_ONCE = Limit(
    "checks_at_once",
    64,
    "checks under way",
    "the embedded catalog's own load on the node",
    "further checks wait, except a container's only one",
)
CHECKS_AT_ONCE_OF_CONTAINER = Limit(
    "checks_at_once_of_container",
    8,
    "checks under way",
    "checks that never get an answer must not delay those of other containers",
    "further checks of that container wait",
)
CHECKS_AT_ONCE_IN_ALL = Limit(
    "checks_at_once_in_all",
    512,
    "checks under way",
    "each takes a file descriptor",
    "further checks wait, whoever they belong to",
)
ANSWER_HEAD = Limit(
    "answer_head",
    16384,
    "octets",
    "a check's server may send headers without end; interim answers and redirects count too",
    "the check is critical",
)
ANSWER_BODY = Limit(
    "answer_body",
    65536,
    "octets",
    "a check's server may send a body without end",
    "the connection is closed, and the HTTP status decides",
)
ANSWER_OVERHEAD = Limit(
    "answer_overhead",
    32768,
    "octets",
    "TLS messages that carry no data (long certificate chains, tickets, key updates) cost CPU",
    "the connection is closed; without a complete head the check is critical",
)
ANSWER_READS = Limit(
    "answer_reads",
    256,
    "reads",
    "an answer that drips in costs one turn of the event loop for each piece",
    "the connection is closed; without a complete head the check is critical",
)
ANSWER_FRAMES = Limit(
    "answer_frames",
    64,
    "HTTP/2 frames, and settings in them",
    "a gRPC server may send PING, SETTINGS or CONTINUATION frames without end",
    "the check is critical",
)
CHECK_OUTPUT = Limit(
    "check_output",
    4096,
    "octets",
    "a check's output is stored and shown; Consul keeps as much",
    "the last octets are kept",
)

# Consul's documents -------------------------------------------------------

CONSUL_ELEMENT = Limit(
    "consul_element",
    2**20,
    "characters",
    "whoever may write one service at Consul may write a hundred megabytes into it, which every agent reads",
    "the instance, node or key is left out; of a list of names the tags only; logged once",
)
CONSUL_DOCUMENT = Limit(
    "consul_document",
    2**26,
    "characters",
    "what Consul answers is held in memory; each element counts for 100 more than it has",
    "the answer counts as a failure of Consul: what was known before stays, and it is asked for again",
)
CONSUL_REPLY = Limit(
    "consul_reply",
    2**16,
    "octets",
    "the text of an error, and the answer to a write",
    "the rest of an error is cut off; a write counts as failed",
)

# The engine's documents ---------------------------------------------------

PORTS = Limit(
    "ports",
    1024,
    "ports",
    "an image may expose 131,070",
    "published ports come first, each by number; the others are left out",
)
BINDINGS = Limit(
    "bindings",
    2048,
    "bindings",
    "where the node publishes the ports of one container",
    "the other ports count as not published",
)
PORT_BINDINGS = Limit(
    "port_bindings", 64, "bindings", "where the node publishes one port", "the first ones count"
)
NETWORKS = Limit(
    "networks", 256, "networks", "of one container", "it is registered on the first ones, by name"
)
LABELS = Limit(
    "labels",
    4096,
    "labels",
    "of one container or Swarm service",
    "the container is not registered: a label that forbids it may be among the others",
)
ENVIRONMENT = Limit(
    "environment",
    4096,
    "variables",
    "of one container",
    "the first ones count; the user's come before the image's",
)
FACT_OCTETS = Limit(
    "fact_octets",
    255,
    "characters",
    "the name of a container, its image, its host and its networks, and of its Swarm or Compose service",
    "the rest is cut off; a container's name ends with its id then",
)
ENGINE_ELEMENT = Limit(
    "engine_element",
    6_291_456,
    "characters",
    "a container's labels and ports are part of each listing; all 131,070 ports have 4.6 million",
    "the container is left out of the listing",
)
ENGINE_EVENT = Limit(
    "engine_event",
    2**20,
    "octets",
    "a container's labels are part of each of its events",
    "the event is not understood, and all containers are compared again",
)
ENGINE_LISTING = Limit(
    "engine_listing",
    2**28,
    "characters",
    "a listing is read element by element; each counts for 100 more than it has",
    "the listing counts as failed, and is asked for again",
)
ENGINE_DOCUMENT = Limit(
    "engine_document",
    6_291_456,
    "octets",
    "the document of one container, with all of its labels, ports and its environment",
    "the container is not registered; logged",
)
ENGINE_ERROR = Limit(
    "engine_error", 2**16, "octets", "the text of an engine's error", "the rest of it is cut off"
)

# The command line ---------------------------------------------------------

AGENT_ANSWER = Limit(
    "agent_answer",
    2**26,
    "octets",
    "what a command reads of an agent, or of what listens in its place",
    "the command fails and says so; no metric",
)

# The process --------------------------------------------------------------

TOKEN_FILE = Limit(
    "token_file",
    4096,
    "octets of a file with a token",
    "a path such as /dev/zero has no end",
    "the agent does not start, and says why",
)

DESCRIPTORS = Limit(
    "descriptors",
    4096,
    "open files and sockets, where the operator's hard limit allows as many",
    "connections from outside must leave some for the engine and Consul",
    "new connections wait in the kernel's queue; one line says so; DNS over UDP is answered",
)


def all_limits() -> Iterator[Limit]:
    """Every limit of this module, in the order in which it is written here."""
    return (value for value in globals().values() if isinstance(value, Limit))
