"""The stats socket over several workers of proxy and handler: one picture, each thing told once
(spec/stats.md §3 to §6)."""

import pytest

import kit
from kit import H

CLIENTS = 8


class Watched(kit.Server):
    def __init__(self, topology, send):
        conf = {'global': {'stats_connection_send': send},
                'proxy': {'stats_report_interval': 1}, 'handler': {'stats_report_interval': 1}}
        super().__init__(routes='*,id=main {o}\n', conf=kit.merge(kit.topology_conf(topology), conf),
                         http_ports=1)


def reports(st, route):
    return [v for t, _, v in st.seen if t == 'report' and v.get('route') == route]


@pytest.mark.parametrize('send', ['true', 'false'])
@pytest.mark.parametrize('topology', ['plain', 'workers', 'both'])
def test_one_picture(started, topology, send):
    srv = Watched(topology, send)
    started.append(srv)
    st = srv.stats()
    # What the harness published to find out that the server is up is in a report of its own.
    H.eventually(lambda: st.pump(0.2) and sum(r['received'] for r in reports(st, None)), 10)
    st.seen.clear()
    ep = srv.origin.endpoint(H.hold_stream('seen-by-all'))

    def settled():
        st.pump(0.2)
        of = reports(st, 'main')
        # Minutes that the proxies counted come with their next reports.
        return (of and of[-1]['connections'] == CLIENTS and sum(r['sent'] for r in of) == CLIENTS
                and sum(r['minutes'] for r in of) >= CLIENTS)
    with kit.Crowd() as crowd:
        crowd.open_many(CLIENTS, srv.http_port, ep.path, until=b'open\n')
        st.wait(lambda t, v: t == 'sub' and v.get('channel') == 'seen-by-all' and v.get('subscribers') == CLIENTS, 10)
        srv.publish(H.stream_item('seen-by-all', 'x\n'))
        crowd.wait_text(b'x\n', 10, crowd.clients)
        H.eventually(settled, 10)
        assert sum(r['minutes'] for r in reports(st, 'main')) == CLIENTS
        assert max(r['connections'] for r in reports(st, 'main')) == CLIENTS
        assert sum(r['received'] for r in reports(st, None)) == 1
        assert all(not r['received'] for r in reports(st, 'main'))
        there = {v['id'] for t, _, v in st.seen if t == 'conn' and not v.get('unavailable')}
        assert len(there) == (CLIENTS if send == 'true' else 0)
    H.eventually(lambda: st.pump(0.2) and reports(st, 'main')[-1]['connections'] == 0, 15)
    gone = {v['id'] for t, _, v in st.seen if t == 'conn' and v.get('unavailable')}
    assert gone == there
    st.wait(lambda t, v: t == 'sub' and v.get('unavailable') and v['channel'] == 'seen-by-all', 10)
    # Everything comes from one sender, whatever the number of workers.
    assert len({v['from'] for _, _, v in st.seen}) == 1
    # After a report of zeros there is silence.
    before = len(reports(st, 'main'))
    st.pump(2.5)
    st.pump(1.5)
    assert len(reports(st, 'main')) <= before + 2
    assert sum(r['minutes'] for r in reports(st, 'main')) == CLIENTS
    last = reports(st, 'main')[-1]
    assert not any(last[k] for k in ('connections', 'minutes', 'sent'))
