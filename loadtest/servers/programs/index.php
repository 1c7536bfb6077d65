<?php
// What PHP's own server serves: it reads the body, and says how long it was.
header('Content-Type: text/plain');
echo strlen(file_get_contents('php://input')), "\n";
