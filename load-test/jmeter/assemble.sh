#!/bin/sh
# Puts JMeter 5.6.3 together in the project's cache folder with Maven, without root and without an installer.
# Prints the folder. Does nothing if it is there already. Needs: java 17 or newer, mvn.
set -eu

version=5.6.3
here=$(cd "$(dirname "$0")" && pwd)
home=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/firstcome/jmeter-$version}

if [ -x "$home/bin/jmeter" ]; then
    echo "$home"
    exit 0
fi
for tool in java mvn; do
    command -v "$tool" >/dev/null || { echo "assemble.sh: $tool is missing; install it (Debian: default-jre-headless, maven)" >&2; exit 1; }
done

# Beside its place and renamed at the end: an interrupted run leaves no half of it.
part=$home.part
rm -rf "$part"
mkdir -p "$part/bin" "$part/lib/ext" "$part/lib/junit" "$part/all"
mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$part/all" >&2
# The configuration and the dashboard's template come in a jar of their own.
mvn -q -B -f "$here/pom.xml" dependency:unpack-dependencies -DincludeArtifactIds=ApacheJMeter_config \
    -Dincludes='bin/**' -DoutputDirectory="$part" -DmarkersDirectory="$part/markers" >&2

for jar in "$part"/all/*.jar; do
    name=$(basename "$jar")
    case $name in
        "ApacheJMeter-$version.jar") mv "$jar" "$part/bin/ApacheJMeter.jar" ;;
        ApacheJMeter_*) mv "$jar" "$part/lib/ext/${name%-"$version".jar}.jar" ;;
        *) mv "$jar" "$part/lib/" ;;
    esac
done
rm -rf "$part/all" "$part/markers"

cat >"$part/bin/jmeter" <<'RUN'
#!/bin/sh
# Small stacks, as a plan of 15,000 users has 15,000 threads. JVM_ARGS replaces these settings.
home=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck disable=SC2086
exec java ${JVM_ARGS:--Xms256m -Xmx2g -Xss256k} -Djava.awt.headless=true -jar "$home/bin/ApacheJMeter.jar" "$@"
RUN
chmod +x "$part/bin/jmeter"
rm -rf "$home"
mv "$part" "$home"
echo "$home"
