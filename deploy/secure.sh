#!/bin/sh
# Makes a folder with what docker-compose.secure.yml and deploy/kubernetes/secure want: an authority, a certificate and passwords for
# each part, the servers' users, and the address by which each part reaches them. Needs openssl.
#
#   sh deploy/secure.sh [FOLDER]        FOLDER is `secure` unless given, and must not be there yet
#
# The authority is for these servers alone. ca.key signs others: keep it elsewhere, or throw it away and make all anew.
set -eu
umask 022
out=${1:-secure}
valkey=$(cd "$(dirname "$0")/valkey" && pwd)
days=825
if [ -e "$out" ]; then
  echo "$out is there already: move it away first" >&2
  exit 1
fi
# Nobody else of this host gets past the folder itself; the containers' users, whom it does not know, read what is in it.
mkdir -m 700 "$out"
cd "$out"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" -subj "/CN=persona authority" \
  -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout ca.key -out ca.pem 2>/dev/null
chmod 600 ca.key

# certificate FOLDER/NAME COMMON_NAME EXTENSION...
certificate() {
  path=$1 name=$2
  shift 2
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$path.key" -out request 2>/dev/null
  # Python from 3.13 on checks strictly, and wants the identifiers.
  printf '%s\n' "basicConstraints=critical,CA:FALSE" subjectKeyIdentifier=hash authorityKeyIdentifier=keyid "$@" > extensions
  openssl x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -days "$days" -extfile extensions -out "$path.pem" 2>/dev/null
  chmod 644 "$path.key"
  rm request extensions
}

for server in broker cache; do
  mkdir "$server"
  cp ca.pem "$server/ca.pem"
  cp "$valkey/$server.acl" "$server/users.conf"
  certificate "$server/server" "$server" "subjectAltName=DNS:$server,DNS:$server.persona.svc,DNS:localhost,IP:127.0.0.1"
done

# password SERVER USER: made once, and put into the server's users
password() {
  if [ ! -e "$1.$2" ]; then
    openssl rand -hex 24 > "$1.$2"
    mark="CHANGE_ME_$(echo "$2" | tr '[:lower:]' '[:upper:]')"
    sed "s/>$mark />$(cat "$1.$2") /" "$1/users.conf" > users && mv users "$1/users.conf"
  fi
  cat "$1.$2"
}

# address SERVER USER
address() {
  here=/run/secrets/persona
  echo "rediss://$2:$(password "$1" "$2")@$1:6379/0?ssl_ca_certs=$here/ca.pem&ssl_certfile=$here/client.pem&ssl_keyfile=$here/client.key"
}

for role in caller worker beat flower operator; do
  mkdir "$role"
  cp ca.pem "$role/ca.pem"
  certificate "$role/client" "$role" "extendedKeyUsage=clientAuth"
  address broker "$role" > "$role/broker-url"
  case $role in
    beat) ;;
    flower | operator) address cache "$role" > "$role/cache-url" ;;
    *) address cache app > "$role/cache-url" ;;
  esac
done
rm -f broker.?* cache.?* ca.srl
echo "made $out: a folder for each part; ca.key signs further certificates"
