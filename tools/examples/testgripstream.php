<?php
// A stream: the client gets the body of this answer at once, and everything that is published to
// `test` after it. Publish with
//   pushpin-publish test hello

header('Content-Type: text/plain');
header('Grip-Hold: stream');
header('Grip-Channel: test');
echo "open\n";
