"""Tnetstrings and ZeroMQ sockets for the scripts of this folder.

A tnetstring is `LENGTH:BYTES` and a type: `,` bytes, `#` integer, `^` float, `!` boolean,
`~` null, `]` list, `}` map. Texts go out as UTF-8; bytes come back as they are, `text` decodes.
"""

import sys

try:
    import zmq
except ImportError:
    sys.exit('this script needs pyzmq: apt-get install python3-zmq, or pip install pyzmq')


def dumps(value):
    """The tnetstring of a value."""
    if value is None:
        kind, data = b'~', b''
    elif isinstance(value, bool):
        kind, data = b'!', b'true' if value else b'false'
    elif isinstance(value, int):
        kind, data = b'#', b'%d' % value
    elif isinstance(value, float):
        kind, data = b'^', repr(value).encode()
    elif isinstance(value, str):
        kind, data = b',', value.encode('utf-8', 'surrogateescape')
    elif isinstance(value, (bytes, bytearray)):
        kind, data = b',', bytes(value)
    elif isinstance(value, (list, tuple)):
        kind, data = b']', b''.join(dumps(item) for item in value)
    elif isinstance(value, dict):
        kind, data = b'}', b''.join(dumps(k) + dumps(v) for k, v in value.items())
    else:
        raise TypeError('no tnetstring for %s' % type(value).__name__)
    return b'%d:%s%s' % (len(data), data, kind)


def loads(data):
    """The value of a tnetstring; what follows it is ignored. Keys of maps are texts."""
    return _parse(bytes(data), 0)[0]


def _parse(data, start):
    colon = data.index(b':', start)
    begin = colon + 1
    end = begin + int(data[start:colon])
    if end >= len(data):
        raise ValueError('tnetstring is cut off')
    return _value(data[begin:end], data[end:end + 1]), end + 1


def _value(data, kind):
    if kind == b',':
        return data
    if kind == b'#':
        return int(data)
    if kind == b'^':
        return float(data)
    if kind == b'!':
        return data == b'true'
    if kind == b'~':
        return None
    if kind == b']':
        return _items(data)
    if kind == b'}':
        items = _items(data)
        return {k.decode(): v for k, v in zip(items[::2], items[1::2])}
    raise ValueError('unknown tnetstring type %r' % kind)


def _items(data):
    items, at = [], 0
    while at < len(data):
        item, at = _parse(data, at)
        items.append(item)
    return items


def text(value):
    """The value with all bytes in it decoded."""
    if isinstance(value, bytes):
        return value.decode('utf-8', 'replace')
    if isinstance(value, list):
        return [text(item) for item in value]
    if isinstance(value, dict):
        return {key: text(item) for key, item in value.items()}
    return value


def socket(kind, linger_ms=2000, **options):
    """A socket of a kind such as zmq.SUB. Options by their ZeroMQ names: subscribe=b'x '."""
    sock = zmq.Context.instance().socket(kind)
    sock.setsockopt(zmq.LINGER, linger_ms)
    for name, value in options.items():
        sock.setsockopt(getattr(zmq, name.upper()), value)
    return sock


def request(spec, method, args=None, request_id=None, timeout_ms=12000):
    """Calls a method of the command socket; gives the reply as a dict of texts."""
    sock = socket(zmq.REQ, linger_ms=0)
    sock.connect(spec)
    message = {'method': method}
    if request_id is not None:
        message['id'] = request_id
        message['args'] = args or {}
    sock.send(dumps(message))
    if not sock.poll(timeout_ms):
        sys.exit('no answer from %s within %d seconds: is the server running, and is this its '
                 'command_spec?' % (spec, timeout_ms // 1000))
    return text(loads(sock.recv()))


def run(main):
    """Runs a script that works until it is interrupted."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except zmq.ZMQError as error:
        sys.exit('error: %s' % error)
