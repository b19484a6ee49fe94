<?php
// Radio: the client's answer never ends, and is what mp3stream_publisher.py publishes to `audio`.

header('Content-Type: audio/mpeg');
header('Cache-Control: no-store');
header('Grip-Hold: stream');
header('Grip-Channel: audio');
