<?php
// As testgripresponse.php, with the instructions as the body instead of in headers.

header('Content-Type: application/grip-instruct');
echo json_encode([
    'hold' => ['mode' => 'response', 'timeout' => 20, 'channels' => [['name' => 'test']]],
    'response' => [
        'headers' => ['Content-Type' => 'text/plain'],
        'body' => "nothing new\n",
    ],
]), "\n";
