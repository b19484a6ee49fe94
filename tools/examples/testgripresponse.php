<?php
// A long poll: the client waits until something is published to `test`, at most 20 seconds, and gets
// the body of this answer if nothing is. Put it where the web server of a route finds it; publish with
//   pushpin-publish test hello

header('Content-Type: text/plain');
header('Grip-Hold: response');
header('Grip-Channel: test');
header('Grip-Timeout: 20');
echo "nothing new\n";
