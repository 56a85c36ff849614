#!/bin/sh
# Starts a Redis node. Its configuration is written once and then belongs to it: Sentinel rewrites it at each failover,
# so that a node that comes back has the role that it had last.
# NODE_ADDRESS: this node; MASTER_ADDRESS: the first master.
set -eu
umask 077
if [ ! -f /data/redis.conf ]; then
    password=$(cat /run/secrets/redis)
    {
        cat /config/redis.conf
        echo "replica-announce-ip $NODE_ADDRESS"
        echo "requirepass $password"
        echo "masterauth $password"
        [ "$NODE_ADDRESS" = "$MASTER_ADDRESS" ] || echo "replicaof $MASTER_ADDRESS 6379"
    } > /data/redis.conf.new
    mv /data/redis.conf.new /data/redis.conf
fi
exec redis-server /data/redis.conf
