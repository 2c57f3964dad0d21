#!/bin/sh
# Fetch the Debian packages of pg_dump and of its libpq: `client.sh MAJOR pinned|newest|either FOLDER`, on Debian, as root.
#
# pinned  the packages of client.txt, byte for byte, from the mirror of this system's apt; where a newer version has
#         replaced them there, from Debian's archive of snapshots. Of a major that client.txt does not have: newest.
# newest  the newest minor version: from this system's apt, else from the PostgreSQL project's packages, else from
#         Debian's testing suite.
# either  pinned, and newest where the pinned packages cannot be had.
set -eu

main() {
    mkdir -p "$folder"
    case $mode in
    pinned) if has_pins; then fetch_pinned || fail_pinned; else fetch_newest; fi ;;
    newest) fetch_newest ;;
    either)
        if has_pins && fetch_pinned; then return; fi
        fetch_newest
        ;;
    *) fail "PG_PACKAGES is '$mode': say pinned, newest or either" ;;
    esac
}

say() { echo "client: $*"; }

fail() {
    echo "error: $*" >&2
    exit 1
}

fail_pinned() {
    fail "cannot fetch the packages that requirements/client.txt pins for pg_dump $major on $architecture: they are" \
        "neither at $(echo ${mirrors:-a mirror of this apt}) nor at ${archive:-an archive of snapshots that this apt knows}; let the build" \
        "reach one of them, or build with --build-arg PG_PACKAGES=newest"
}

pins() { grep "/postgresql-$major/.*_$architecture\.deb\$" "$pinned"; }

has_pins() { pins > /dev/null; }

fetch_pinned() {
    # A pipe would hide that one of them failed.
    pins > "$folder/pins"
    result=0
    while read -r sha256 path; do
        fetch "$sha256" "$path" || result=1
    done < "$folder/pins"
    rm "$folder/pins"
    return $result
}

# One file, by its sha256: where it comes from is no matter then.
fetch() {
    for mirror in $mirrors; do
        if download "$mirror" "$1" "$2"; then return; fi
    done
    [ -n "$archive" ] || return 1
    say "$(basename "$2") is not at the mirror any more: it is taken from Debian's archive of snapshots"
    case $archive in
    https:*) [ -e /etc/ssl/certs/ca-certificates.crt ] || install ca-certificates ;;
    esac
    download "$archive" "$1" "$2"
}

download() {
    /usr/lib/apt/apt-helper -q -o APT::Sandbox::User=root \
        download-file "${1%/}/$3" "$folder/$(basename "$3")" "SHA256:$2" < /dev/null
}

install() { apt-get update -q && apt-get install -y -q --no-install-recommends "$@" < /dev/null; }

fetch_newest() {
    rm -f "$folder"/*.deb
    apt-get update -q
    has_newest || add_pgdg || true
    has_newest || add_testing
    has_newest || fail "there are no packages of pg_dump $major for $architecture: choose another by" \
        "--build-arg PG_MAJOR, or let the build reach the PostgreSQL project's packages"
    (cd "$folder" && apt-get download -q -o APT::Sandbox::User=root "postgresql-client-$major" libpq5)
}

has_newest() { apt-cache show "postgresql-client-$major" > /dev/null 2>&1; }

add_pgdg() { install ca-certificates postgresql-common && /usr/share/postgresql-common/pgdg/*.sh -y < /dev/null; }

add_testing() {
    say "the PostgreSQL project's packages cannot be had: those of Debian's testing suite instead"
    # Without what add_pgdg may have left half way, which would fail each update.
    rm -f /etc/apt/sources.list.d/pgdg.*
    for mirror in $mirrors; do
        echo "deb $mirror testing main" > /etc/apt/sources.list.d/testing.list
        if apt-get update -q && has_newest; then return; fi
    done
}

major=$1 mode=$2 folder=$3
pinned=$(dirname "$0")/client.txt
architecture=$(dpkg --print-architecture)
# What apt would ask for new lists: it says so without having any.
mirrors=$(apt-get update --print-uris | sed -n "s|^'\(.*\)/dists/.*|\1|p" | sort -u)
# apt knows where the archive of its distribution is.
archive=
eval "$(apt-config shell archive Acquire::Snapshots::URI::Origin::Debian)"
archive=$(echo "$archive" | sed "s/@SNAPSHOTID@/$(sed -n 's/^snapshot //p' "$pinned")/")
main
