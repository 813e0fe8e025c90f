#!/usr/bin/env bash
# Takes the place of tests/zkServer.sh beside Apache's C client's own tests: the same words, but it starts the
# server that ZOOMETRY_SERVER names. It runs where the tests run and keeps everything below ./zoometry-tmp.
#
#   zkServer.sh startClean|start|startCleanReadOnly|startRequireSASLAuth|stop [HOST:PORT] [readOnly]
set -u
port=${ZOOPORT:-22181}
tmp=$PWD/zoometry-tmp
mkdir -p "$tmp"

if [[ -r $tmp/pid ]]; then
    kill -9 "$(<"$tmp/pid")" 2>/dev/null
    rm -f "$tmp/pid"
fi
[[ $1 == stop ]] && exit 0
[[ $1 == *Clean* ]] && rm -rf "$tmp/data"
mkdir -p "$tmp/data"

{
    echo "tickTime=500"
    echo "initLimit=10"
    echo "syncLimit=5"
    echo "dataDir=$tmp/data"
    echo "clientPort=$port"
    echo "maxClientCnxns=${ZKMAXCNXNS:-100}"
    echo "extendedTypesEnabled=true"
    echo "znode.container.checkIntervalMs=100"
    echo "admin.enableServer=false"
    if [[ $1 == *ReadOnly || ${3:-} == readOnly ]]; then
        echo "readonlymode.enabled=true"
        for id in 1 2 3; do
            echo "server.$id=localhost:2288$id:3388$id"
        done
        echo 1 >"$tmp/data/myid"
    fi
    [[ $1 == startRequireSASLAuth ]] && echo "sessionRequireClientSASLAuth=true"
    # Java properties of the test: -Dzookeeper.name=value is name=value in zoo.cfg.
    for flag in ${EXTRA_JVM_ARGS:-}; do
        [[ $flag == -D* ]] && flag=${flag#-D} && echo "${flag#zookeeper.}"
    done
} >"$tmp/zoo.cfg"

"${ZOOMETRY_SERVER:?names the executable of zoometry-server}" "$tmp/zoo.cfg" </dev/null >>"$tmp/log" 2>&1 &
echo $! >"$tmp/pid"

# Waits until the port takes connections, half a minute at most.
for _ in {1..600}; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        # A member that finds no other serves reads after a while; the original waits four seconds, too.
        [[ $1 == *ReadOnly || ${3:-} == readOnly ]] && sleep 4
        echo -n " ZooKeeper server started"
        exit 0
    fi
    sleep 0.05
done
echo -n " ZooKeeper server NOT started, see $tmp/log"
exit 1
