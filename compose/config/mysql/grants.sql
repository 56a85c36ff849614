-- Each service creates its own database at its first start.
GRANT ALL PRIVILEGES ON `firstcome\_%`.* TO 'firstcome'@'%';
