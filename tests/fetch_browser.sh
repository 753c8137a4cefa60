#!/usr/bin/env bash
# Brings a headless Chromium to FOLDER for tests/test_report_browser.py, on a Linux machine that has none and has npm:
# the npm package @sparticuz/chromium (68 MB, MIT) holds the browser, the libraries it needs and a font.
# Usage: tests/fetch_browser.sh FOLDER
set -euo pipefail
folder=$1
version=147.0.0
sha512=e1929e01041af2ea769adebbe6a4a2b73b4b75b42b95ff0129d0b99da79aa7ee4cbf5395d4e94974fa14f84242fe9e6c414254426378afeab9f8485a68e507a5

for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if [ -n "${KEYREID_BROWSER:-}" ] || [ -x "$folder/chromium" ]; then exit 0; fi
if [ "$(uname -sm)" != "Linux x86_64" ] || ! command -v npm >/dev/null; then
  echo "no browser, and none fetched: npm on Linux x86_64 would be needed" >&2
  exit 1
fi

partial=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$partial"' EXIT
timeout 300 npm pack --silent --fetch-retries=1 --pack-destination "$partial" "@sparticuz/chromium@$version" >/dev/null
echo "$sha512  $(echo "$partial"/*.tgz)" | sha512sum --check --quiet
tar -xzf "$partial"/*.tgz -C "$partial" --strip-components=2 package/bin
rm "$partial"/*.tgz
unpack() {
  node -e 'const { brotliDecompressSync: unpack } = require("zlib"), { readFileSync: read, writeFileSync: write } = require("fs");
    write(process.argv[2], unpack(read(process.argv[1])))' "$partial/$1.br" "$partial/$1"
}
for archive in al2023.tar fonts.tar; do
  unpack "$archive"
  tar -xf "$partial/$archive" -C "$partial"
done
cat >"$partial/fonts.conf" <<'XML'
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>/usr/share/fonts</dir>
  <dir prefix="relative">fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
XML
unpack chromium
chmod 755 "$partial" "$partial/chromium"
rm "$partial"/*.br "$partial"/*.tar
LD_LIBRARY_PATH="$partial/lib" timeout 60 "$partial/chromium" --version >/dev/null  # it runs on this machine
mv "$partial" "$folder"
