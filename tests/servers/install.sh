#!/bin/sh
# Installs the servers that tests talk to from the system's packages, without starting any service.
# Needs root and apt; says in one line what it does, or what is skipped.
set -eu

packages="redis-server nats-server mariadb-server-core mariadb-client-core influxdb"
programs="redis-server nats-server mariadbd mariadb influxd"

PATH="$PATH:/usr/sbin:/usr/local/sbin"
missing=""
for program in $programs; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed:$missing (tests on them are skipped; install with root and apt: $packages)"
  exit 0
fi

# The packages' scripts want to start services; this file forbids it while they are installed.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
echo "installing servers for the tests: $packages"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
