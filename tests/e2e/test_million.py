"""`tools/c1m/million`, with few streams: its figures are complete, and nobody is deaf."""

import json
import os
import subprocess
import xml.etree.ElementTree as ElementTree

import kit

STREAMS = 2000


def test_a_small_million(tmp_path):
    quick = ['--groups=20', '--publish=5', '--publish-rate=5', '--everyone-rate=20', '--hold=1', '--back=2']
    command = [os.path.join(kit.ROOT, 'tools', 'c1m', 'million'), str(STREAMS), '--rounds=2',
               '--programs=' + kit.BUILD, '--out=%s' % tmp_path, *quick]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr

    outcome = json.loads((tmp_path / 'summary.json').read_text())
    first, second = outcome['first'], outcome['second']
    for opening in first['opening'], second['opening']:
        assert (opening['held'], opening['failed'], opening['stopped']) == (STREAMS, {}, None)
    for message in first['groups'], first['everyone']:
        assert message['received'] == message['expected'] > 0
        assert (message['gaps'], message['repeats'], message['closed']) == (0, 0, {})
    assert first['everyone']['expected'] == STREAMS
    assert first['report']['connections'] >= STREAMS
    assert set(first['memory']) == {'pushpin', 'pushpin-connmgr', 'pushpin-proxy', 'pushpin-handler'}
    assert outcome['requests']['held']['failed'] == 0
    assert all(row['measured'] is not None for row in outcome['targets'])
    assert '| streams held |' in done.stdout

    samples = [json.loads(line) for line in (tmp_path / 'samples.jsonl').read_text().splitlines()]
    assert max(sample['held'] for sample in samples) >= STREAMS
    picture = ElementTree.parse(tmp_path / 'million.svg').getroot()
    assert len(picture.findall('{http://www.w3.org/2000/svg}polyline')) >= 8
