#!/usr/bin/env bash
# Certificates for brokers and clients to try TLS with: certificates.sh DIR. In DIR then are
#   ca.pem, other-ca.pem       two authorities, of which brokers and clients trust the first
#   broker-NAME.pem            a broker's certificate with its key: good, and with one thing wrong each, by name: expired,
#                              future (not valid yet), host (for another host), cn (for no host, but in its common name),
#                              self (signed by itself), unknown (by the other authority), forged (by the key of broker-good,
#                              which is no authority); soon ends in a week
#   self.pem, good.pem         of two of them the certificate alone
#   client.pem, client.key     a client's, with its key; client-encrypted.key needs the password "open sesame",
#                              client-old.key is encrypted as OpenSSL once did
#   foreign.pem, foreign.key   a client's by the other authority
set -euo pipefail

cd "$1"
PASSWORD='open sesame'

key() {
  openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null ||
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null
}

# authority NAME
authority() {
  key "$1"
  openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 3650 -out "$1.pem"
  mkdir -p "$1"
  : >"$1/index"
  echo 01 >"$1/serial"
  cat >"$1/conf" <<CONF
[ca]
default_ca = it
[it]
database = $1/index
serial = $1/serial
new_certs_dir = $1
certificate = $1.pem
private_key = $1.key
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
CONF
}

# certificate NAME AUTHORITY COMMON-NAME FROM-DAY TO-DAY [SUBJECT-ALT-NAMES]
certificate() {
  local extensions=basicConstraints=CA:FALSE
  key "$1"
  openssl req -new -key "$1.key" -subj "/CN=$3" -out "$1.csr"
  if [[ -n ${6:-} ]]; then extensions+=$'\n'subjectAltName=$6; fi
  openssl ca -batch -notext -config "$2/conf" -in "$1.csr" -out "$1.pem" -extfile <(echo "$extensions") \
    -startdate "$(day "$4")" -enddate "$(day "$5")" 2>"$1.log" || { cat "$1.log" >&2; exit 1; }
}

# day NUMBER: so many from now, as openssl wants it.
day() {
  date --utc --date="$1 days" +%Y%m%d%H%M%SZ
}

# broker NAME AUTHORITY COMMON-NAME FROM-DAY TO-DAY [SUBJECT-ALT-NAMES]
broker() {
  certificate "broker-$1" "${@:2}"
  cat "broker-$1.key" >>"broker-$1.pem"
}

authority ca
authority other-ca
HERE=DNS:localhost,IP:127.0.0.1
broker good ca broker -1 365 "$HERE"
broker soon ca broker -1 7 "$HERE"
broker expired ca broker -60 -30 "$HERE"
broker future ca broker 30 60 "$HERE"
broker host ca broker -1 365 DNS:kafka.example,IP:192.0.2.1
broker cn ca 127.0.0.1 -1 365
broker unknown other-ca broker -1 365 "$HERE"
key broker-self
openssl req -x509 -new -key broker-self.key -subj /CN=broker -days 365 -addext "subjectAltName=$HERE" -out self.pem
cat self.pem broker-self.key >broker-self.pem
openssl x509 -in broker-good.pem -out good.pem
key broker-forged
openssl req -new -key broker-forged.key -subj /CN=broker -out broker-forged.csr
openssl x509 -req -in broker-forged.csr -CA good.pem -CAkey broker-good.key -set_serial 7 -days 365 \
  -extfile <(echo "subjectAltName=$HERE") -out broker-forged.pem 2>/dev/null
cat broker-forged.key >>broker-forged.pem
certificate client ca client -1 365
certificate foreign other-ca client -1 365
openssl pkcs8 -topk8 -in client.key -passout "pass:$PASSWORD" -out client-encrypted.key
openssl ec -in client.key -aes256 -passout "pass:$PASSWORD" -out client-old.key 2>/dev/null
