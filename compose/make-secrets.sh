#!/bin/sh
# Makes the secrets that compose.yaml hands to the containers, each once; what exists is kept.
set -eu
cd "$(dirname "$0")"
# Nobody else on this machine gets into the folder. The files in it are readable, because a container sees them with
# these same modes and runs as a user of its own.
mkdir -p secrets
chmod 700 secrets
umask 022
for name in mysql mysql-root redis identity mac admin-token admin-password; do
    [ -s "secrets/$name" ] || openssl rand -hex 32 | tr -d '\n' > "secrets/$name"
done
chmod 644 secrets/*
echo "secrets are in $(pwd)/secrets; the first administrator's password is in secrets/admin-password"
