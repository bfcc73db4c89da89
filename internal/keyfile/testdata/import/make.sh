#!/usr/bin/env bash
# Makes every file of this directory but README.md and itself, with the openssl
# command line (written for OpenSSL 3.0) and xxd. The keys are for tests only:
# they are published with the source, so nothing may ever be protected by them.
#
# Run it in this directory. Each run makes new keys; the tests rely on no value.
set -euo pipefail
cd "$(dirname "$0")"
rm -f -- *.pem *.der *.pfx *.byok *.txt

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

password=test-only-password
printf '%s' "$password" > password.txt
pw="file:password.txt"
utf8=pässwörd-for-tests
printf '%s' "$utf8" > password-utf8.txt

# ---- Keys: PKCS#8 and PKCS#1, plain ------------------------------------------

rsa() { openssl genpkey -quiet -algorithm RSA -pkeyopt "rsa_keygen_bits:$1" "${@:3}" -out "$2"; }

rsa 2048 rsa2048.pem
openssl rsa -in rsa2048.pem -traditional -out rsa2048-pkcs1.pem
openssl pkcs8 -topk8 -nocrypt -in rsa2048.pem -outform DER -out rsa2048.der
openssl rsa -in rsa2048.pem -traditional -outform DER -out rsa2048-pkcs1.der
openssl rsa -in rsa2048.pem -pubout -out rsa2048-public.pem
openssl rsa -in rsa2048.pem -text -out rsa2048-text.pem
rsa 2048 rsa2048-other.pem

# ---- Keys that are refused ---------------------------------------------------

rsa 1024 rsa1024.pem
openssl rsa -in rsa1024.pem -traditional -out rsa1024-pkcs1.pem
rsa 3072 rsa3072.pem
rsa 2048 rsa2048-e3.pem -pkeyopt rsa_keygen_pubexp:3
rsa 2048 rsa2048-e33bits.pem -pkeyopt rsa_keygen_pubexp:4294967297
rsa 2048 rsa2048-3primes.pem -pkeyopt rsa_keygen_primes:3
openssl genpkey -quiet -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out rsa2048-pss.pem
openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec-p256.pem
openssl ec -in ec-p256.pem -out ec-p256-sec1.pem
openssl genpkey -quiet -algorithm ED25519 -out ed25519.pem
openssl genpkey -quiet -algorithm X25519 -out x25519.pem
cat rsa2048.pem rsa2048-other.pem > two-keys.pem
cat rsa2048.pem ec-p256.pem > two-kinds.pem

# ---- PKCS#8, encrypted -------------------------------------------------------

p8() { openssl pkcs8 -topk8 -in rsa2048.pem -passout "$pw" -out "$1" "${@:2}"; }

p8 rsa2048-encrypted.pem        -v2 aes-256-cbc -v2prf hmacWithSHA256
p8 rsa2048-encrypted-aes192.pem -v2 aes-192-cbc -v2prf hmacWithSHA384 -iter 1000
p8 rsa2048-encrypted-aes128.pem -v2 aes-128-cbc -v2prf hmacWithSHA512 -iter 1000
p8 rsa2048-encrypted-sha224.pem -v2 aes-256-cbc -v2prf hmacWithSHA224 -iter 1000
p8 rsa2048-encrypted-sha1.pem   -v2 aes-256-cbc -v2prf hmacWithSHA1 -iter 1000
p8 rsa2048-encrypted-des3.pem   -v2 des3
p8 rsa2048-encrypted-pbes1.pem  -v1 PBE-SHA1-3DES
p8 rsa2048-encrypted-scrypt.pem -scrypt -scrypt_N 1024
openssl rsa -in rsa2048.pem -traditional -aes256 -passout "$pw" -out rsa2048-legacy-encrypted.pem
openssl pkcs8 -topk8 -in ec-p256.pem -passout "$pw" -v2 aes-256-cbc -out ec-p256-encrypted.pem

# OpenSSL 3.0 always takes a salt of 8 bytes, too short for FIPS 140. The same
# file with 16 is put together from its parts: tlv TAG HEX is one DER element.
tlv() {
  local n=$((${#2} / 2))
  if   ((n < 128)); then printf '%s%02x%s' "$1" "$n" "$2"
  elif ((n < 256)); then printf '%s81%02x%s' "$1" "$n" "$2"
  else                   printf '%s82%04x%s' "$1" "$n" "$2"; fi
}
hex() { xxd -p -c 0 "$1"; }
unhex() { xxd -r -p; }
aes256cbc=060960864801650304012a
sha256=0609608648016503040201
hmac256=06082a864886f70d0209
pbkdf2=06092a864886f70d01050c
pbes2=06092a864886f70d01050d
null=0500

salt=$(openssl rand -hex 16)
iv=$(openssl rand -hex 16)
key=$(openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt "pass:$password" \
  -kdfopt "hexsalt:$salt" -kdfopt iter:2048 -binary PBKDF2 | xxd -p -c 0)
openssl enc -aes-256-cbc -K "$key" -iv "$iv" -in rsa2048.der -out "$work/sealed"
kdf=$(tlv 30 "$pbkdf2$(tlv 30 "$(tlv 04 "$salt")02020800$(tlv 30 "$hmac256$null")")")
enc=$(tlv 30 "$aes256cbc$(tlv 04 "$iv")")
tlv 30 "$(tlv 30 "$pbes2$(tlv 30 "$kdf$enc")")$(tlv 04 "$(hex "$work/sealed")")" | unhex > "$work/p8.der"
{
  echo '-----BEGIN ENCRYPTED PRIVATE KEY-----'
  openssl base64 -in "$work/p8.der"
  echo '-----END ENCRYPTED PRIVATE KEY-----'
} > rsa2048-encrypted-salt16.pem
openssl pkey -in rsa2048-encrypted-salt16.pem -passin "$pw" -out "$work/back.pem"
cmp rsa2048.pem "$work/back.pem"

# ---- PKCS#12 -----------------------------------------------------------------

cert() { openssl req -x509 -key "$1" -subj '/CN=for tests only' -days 36500 -out "$2"; }
cert rsa2048.pem certificate.pem
for k in rsa2048-other rsa1024 rsa3072 rsa2048-e3 rsa2048-pss ec-p256 ed25519; do cert $k.pem "$work/$k.crt"; done

# pfx KEY CERTIFICATE FILE OPTIONS...
pfx() { openssl pkcs12 -export -inkey "$1" -in "$2" -out "$3" -passout "$pw" "${@:4}"; }
pfx rsa2048.pem certificate.pem modern.pfx -keypbe AES-256-CBC -certpbe AES-256-CBC -macalg sha256
pfx rsa2048.pem certificate.pem legacy.pfx -legacy
pfx rsa2048.pem certificate.pem legacy-3des.pfx -legacy -descert
pfx rsa2048.pem certificate.pem chain.pfx -certfile "$work/rsa2048-other.crt"
pfx rsa2048.pem certificate.pem no-mac.pfx -nomac
pfx rsa2048.pem certificate.pem sha384-mac.pfx -macalg sha384
pfx rsa2048.pem certificate.pem camellia.pfx -keypbe CAMELLIA-256-CBC
pfx rsa1024.pem "$work/rsa1024.crt" rsa1024.pfx
pfx rsa3072.pem "$work/rsa3072.crt" rsa3072.pfx
pfx rsa2048-e3.pem "$work/rsa2048-e3.crt" rsa2048-e3.pfx
pfx rsa2048-pss.pem "$work/rsa2048-pss.crt" rsa2048-pss.pfx
pfx ed25519.pem "$work/ed25519.crt" ed25519.pfx
pfx ec-p256.pem "$work/ec-p256.crt" ec-p256.pfx
openssl pkcs12 -export -inkey rsa2048.pem -in certificate.pem -passout file:password-utf8.txt -out utf8-password.pfx
openssl pkcs12 -export -inkey rsa2048.pem -in certificate.pem -passout pass: -out empty-password.pfx
openssl pkcs12 -export -nocerts -inkey rsa2048.pem -passout "$pw" -out key-only.pfx
openssl pkcs12 -export -nocerts -inkey rsa2048.pem -passout "$pw" -keypbe NONE -out key-only-plain.pfx
openssl pkcs12 -export -nocerts -inkey rsa2048.pem -passout "$pw" -legacy -descert -out key-only-3des.pfx
openssl pkcs12 -export -nocerts -inkey rsa2048.pem -passout "$pw" -nomac -out key-only-no-mac.pfx
openssl pkcs12 -export -nocerts -inkey rsa2048.pem -passout pass: -out key-only-empty.pfx
openssl pkcs12 -export -nokeys -in certificate.pem -passout "$pw" -out certificate-only.pfx
# What "openssl pkcs12" makes of a .pfx: texts, the certificate and the key.
openssl pkcs12 -in modern.pfx -passin "$pw" -nodes -out rsa2048-from-pfx.pem

# openssl does not put two keys into one PKCS#12 file, so that this one, too, is
# put together from parts, and openssl is asked whether it reads both.
data=06092a864886f70d010701
shrouded=060b2a864886f70d010c0a0102
certbag=060b2a864886f70d010c0a0103
x509=060a2a864886f70d01091601
for k in rsa2048 rsa2048-other; do
  openssl pkcs8 -topk8 -in $k.pem -passout "$pw" -v2 aes-256-cbc -outform DER -out "$work/$k.p8"
done
openssl x509 -in certificate.pem -outform DER -out "$work/certificate.der"
bag() { tlv 30 "$shrouded$(tlv a0 "$(hex "$1")")"; }
crt=$(tlv 30 "$certbag$(tlv a0 "$(tlv 30 "$x509$(tlv a0 "$(tlv 04 "$(hex "$work/certificate.der")")")")")")
contents=$(tlv 30 "$(bag "$work/rsa2048.p8")$(bag "$work/rsa2048-other.p8")$crt")
safe=$(tlv 30 "$(tlv 30 "$data$(tlv a0 "$(tlv 04 "$contents")")")")
salt=$(openssl rand -hex 8)
bmp=$(printf '%s' "$password" | xxd -p -c 0 | sed 's/../00&/g')0000
mackey=$(openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt "hexpass:$bmp" \
  -kdfopt "hexsalt:$salt" -kdfopt iter:2048 -kdfopt id:3 -binary PKCS12KDF | xxd -p -c 0)
mac=$(printf '%s' "$safe" | unhex | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$mackey" -binary | xxd -p -c 0)
macdata=$(tlv 30 "$(tlv 30 "$(tlv 30 "$sha256$null")$(tlv 04 "$mac")")$(tlv 04 "$salt")02020800")
tlv 30 "020103$(tlv 30 "$data$(tlv a0 "$(tlv 04 "$safe")")")$macdata" | unhex > two-keys.pfx
[ "$(openssl pkcs12 -in two-keys.pfx -passin "$pw" -nodes | grep -c 'BEGIN PRIVATE KEY')" = 2 ]

# openssl writes DER, and reads BER. ber.pfx is modern.pfx with indefinite lengths and its
# content in pieces; of ber-inside.pfx the content has such lengths too.
at() { openssl asn1parse -inform DER -in modern.pfx | sed -n "$1" | sed 's/^ *\([0-9]*\):.*/\1/'; }
openssl asn1parse -inform DER -in modern.pfx -strparse "$(at 6p)" -noout -out "$work/safe"
safe=$(hex "$work/safe")
macdata=$(tail -c "+$(($(at '/d=1 .*SEQUENCE/p' | tail -1) + 1))" modern.pfx | xxd -p -c 0)
pieces=$(tlv 04 "${safe:0:2000}")$(tlv 04 "${safe:2000}")
echo "3080020103 3080$data a0802480${pieces}00000000 0000 ${macdata}0000" | tr -d ' ' | unhex > ber.pfx
contents=3080${safe:8}0000 # a SEQUENCE whose length has two bytes
mac=$(printf '%s' "$contents" | unhex | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$mackey" -binary | xxd -p -c 0)
macdata=$(tlv 30 "$(tlv 30 "$(tlv 30 "$sha256$null")$(tlv 04 "$mac")")$(tlv 04 "$salt")02020800")
tlv 30 "020103$(tlv 30 "$data$(tlv a0 "$(tlv 04 "$contents")")")$macdata" | unhex > ber-inside.pfx
for f in ber.pfx ber-inside.pfx; do
  openssl pkcs12 -in $f -passin "$pw" -nodes -nocerts | openssl pkey -out "$work/back.pem"
  cmp rsa2048.pem "$work/back.pem"
done

# ---- Text in other encodings ---------------------------------------------------

bom=$(printf '\xef\xbb\xbf')
{ printf '%s' "$bom"; cat rsa2048.pem; } > bom.pem
iconv -f UTF-8 -t UTF-16LE rsa2048.pem > utf16le.pem
{ printf '\xff\xfe'; iconv -f UTF-8 -t UTF-16LE rsa2048.pem; } > utf16le-bom.pem
{ printf '\xfe\xff'; iconv -f UTF-8 -t UTF-16BE rsa2048.pem; } > utf16be-bom.pem
iconv -f UTF-8 -t UTF-32 rsa2048.pem > utf32.pem
sed 's/^/    /' rsa2048.pem > indented.pem
tr '\n' '\r' < rsa2048.pem > cr.pem
{ printf 'private_key: '; cat rsa2048.pem; } > text-before.pem
tr '\n' ' ' < rsa2048.pem > one-line.pem
awk '{printf "%s\\n", $0}' rsa2048.pem > escaped.pem

# ---- .byok -------------------------------------------------------------------

rsa 2048 byok-kek.pem
openssl rsa -in byok-kek.pem -pubout -out "$work/kek.pub"
openssl rsa -in rsa2048-other.pem -pubout -out "$work/other.pub"
kid=https://example.vault.azure.net/keys/byok-kek/0123456789abcdef0123456789abcdef

# wrapped TARGET-DER PUBLIC-KEY AES-BITS OAEP-HASH writes RSA-OAEP(AES key) | AES-KWP(target)
wrapped() {
  openssl rand -out "$work/aes" $(($3 / 8))
  openssl pkeyutl -encrypt -pubin -inkey "$2" -in "$work/aes" -pkeyopt rsa_padding_mode:oaep \
    -pkeyopt "rsa_oaep_md:$4" -pkeyopt "rsa_mgf1_md:$4"
  openssl enc "-id-aes$3-wrap-pad" -iv A65959A6 -K "$(hex "$work/aes")" -in "$1"
}
base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
# blob KID ALG ENC < CIPHERTEXT
blob() {
  printf '{\n  "schema_version": "1.0.0",\n  "header": {\n    "kid": "%s",\n    "alg": "%s",\n    "enc": "%s"\n  },\n' "$1" "$2" "$3"
  printf '  "ciphertext": "%s",\n  "generator": "openssl; for tests only"\n}\n' "$(base64url)"
}
algs=(dir CKM_RSA_AES_KEY_WRAP)
der() { openssl pkcs8 -topk8 -nocrypt -in "$1" -outform DER -out "$work/target.der"; echo "$work/target.der"; }

wrapped rsa2048.der "$work/kek.pub" 256 sha1 > "$work/good"
blob "$kid" "${algs[@]}" < "$work/good" > rsa2048.byok
blob "${kid/byok-kek/another-kek}" "${algs[@]}" < "$work/good" > wrong-kid.byok
blob not-a-key-identifier "${algs[@]}" < "$work/good" > malformed-kid.byok
blob "$kid" RSA-OAEP CKM_RSA_AES_KEY_WRAP < "$work/good" > wrong-alg.byok
blob "$kid" dir A256GCM < "$work/good" > wrong-enc.byok
head -c -8 "$work/good" | blob "$kid" "${algs[@]}" > truncated-ciphertext.byok
head -c 200 "$work/good" | blob "$kid" "${algs[@]}" > short-ciphertext.byok
head -c 900 rsa2048.byok > truncated.byok
wrapped rsa2048.der "$work/other.pub" 256 sha1 | blob "$kid" "${algs[@]}" > another-kek.byok
wrapped rsa2048.der "$work/kek.pub" 256 sha256 | blob "$kid" "${algs[@]}" > oaep-sha256.byok
wrapped rsa2048.der "$work/kek.pub" 128 sha1 | blob "$kid" "${algs[@]}" > aes128.byok
wrapped rsa2048-pkcs1.der "$work/kek.pub" 256 sha1 | blob "$kid" "${algs[@]}" > pkcs1.byok
{ cat rsa2048.der; printf trailing; } > "$work/trailing.der"
wrapped "$work/trailing.der" "$work/kek.pub" 256 sha1 | blob "$kid" "${algs[@]}" > trailing.byok
for k in rsa1024 rsa3072 rsa2048-e3 ec-p256; do
  wrapped "$(der $k.pem)" "$work/kek.pub" 256 sha1 | blob "$kid" "${algs[@]}" > $k.byok
done

{ printf '%s' "$bom"; cat rsa2048.byok; } > bom.byok
{ printf '\xff\xfe'; iconv -f UTF-8 -t UTF-16LE rsa2048.byok; } > utf16le-bom.byok

# openssl writes private keys with mode 600, which git does not keep.
chmod 644 -- *.pem *.der *.pfx *.byok *.txt
