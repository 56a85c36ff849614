#!/bin/sh
# Starts a Sentinel. Its configuration is written once and then belongs to it: it notes there who is master.
# NODE_ADDRESS: this Sentinel; MASTER_ADDRESS: the first master.
set -eu
umask 077
if [ ! -f /data/sentinel.conf ]; then
    sed -e "s/@NODE_ADDRESS@/$NODE_ADDRESS/" -e "s/@MASTER_ADDRESS@/$MASTER_ADDRESS/" /config/sentinel.conf \
        > /data/sentinel.conf.new
    echo "sentinel auth-pass firstcome $(cat /run/secrets/redis)" >> /data/sentinel.conf.new
    mv /data/sentinel.conf.new /data/sentinel.conf
fi
exec redis-server /data/sentinel.conf --sentinel
