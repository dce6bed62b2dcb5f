#!/usr/bin/env bash
# libraries.sh OPENSSL_TARGET HOST SOURCES PREFIX: builds the libraries that a wheel carries, static and no larger than
# mfstore needs, from the unpacked SOURCES into PREFIX, with $CC, $AR and $RANLIB. HOST is what autoconf calls the target.
set -euo pipefail
openssl_target=$1 host=$2 sources=$(cd "$3" && pwd) prefix=$4
: "${CC:=cc}" "${AR:=ar}" "${RANLIB:=ranlib}" "${JOBS:=2}"
export CC AR RANLIB
# A section each, so that the linker leaves out what no extension calls. Hidden: an extension exports PyInit_* alone.
common="-O3 -fPIC -fvisibility=hidden -ffunction-sections -fdata-sections -fstack-protector-strong"
mkdir -p "$prefix/include" "$prefix/lib/pkgconfig"
prefix=$(cd "$prefix" && pwd)

# NAME VERSION LIBRARIES: what setup.py asks pkg-config for.
describe() {
    printf 'prefix=%s\nName: %s\nDescription: %s\nVersion: %s\nCflags: -I${prefix}/include\nLibs: -L${prefix}/lib %s\n' \
        "$prefix" "$1" "$1" "$2" "$3" > "$prefix/lib/pkgconfig/$1.pc"
}

version() {
    sed -n "/^\[$1\]/,/^version/s/^version = \"\([^\"]*\)\".*/\1/p" "$(dirname "$0")/sources.toml"
}

small_ones() {
    make -s -C "$sources/zstd/lib" -j "$JOBS" libzstd.a CFLAGS="$common -DXXH_NAMESPACE=ZSTD_" ZSTD_LEGACY_SUPPORT=0 \
        ZSTD_LIB_DICTBUILDER=0 ZSTD_LIB_DEPRECATED=0 UNAME_TARGET_SYSTEM="${host##*-}"
    cp "$sources"/zstd/lib/libzstd.a "$prefix/lib/"
    cp "$sources"/zstd/lib/{zstd,zstd_errors}.h "$prefix/include/"
    describe libzstd "$(version zstd)" -lzstd

    # shellcheck disable=SC2086
    $CC $common -c "$sources/lz4/lib/lz4.c" -o "$prefix/lib/lz4.o"
    $AR rcs "$prefix/lib/liblz4.a" "$prefix/lib/lz4.o"
    cp "$sources/lz4/lib/lz4.h" "$prefix/include/"
    describe liblz4 "$(version lz4)" -llz4

    # shellcheck disable=SC2086
    $CC $common -c "$sources/xxhash/xxhash.c" -o "$prefix/lib/xxhash.o"
    $AR rcs "$prefix/lib/libxxhash.a" "$prefix/lib/xxhash.o"
    cp "$sources/xxhash/xxhash.h" "$prefix/include/"
    describe libxxhash "$(version xxhash)" -lxxhash
    rm "$prefix"/lib/*.o
}

# TLS 1.2 and 1.3 as a client, and what certificates need. no-autoload-config: the host's openssl.cnf, which may have
# directives that this OpenSSL does not know or providers that it cannot load, is not read. Its directory is nowhere, so
# that nobody who may write there tells us whom to trust: mfstore/s3/aws/certificates.py says that.
openssl() {
    (
        cd "$sources/openssl"
        ./Configure "$openssl_target" --prefix=/nonexistent/mfstore --libdir=lib --openssldir=/nonexistent/mfstore \
            no-shared no-apps no-docs no-tests no-module no-dso no-engine no-legacy no-autoload-config no-async no-comp \
            no-ssl3 no-tls1 no-tls1_1 no-dtls no-quic no-psk no-srp no-srtp no-nextprotoneg no-ssl-trace \
            no-cmp no-cms no-ct no-gost no-http no-ocsp no-rfc3779 no-sctp no-slh-dsa no-ts no-ui-console no-uplink \
            no-aria no-bf no-blake2 no-camellia no-cast no-des no-dsa no-ec2m no-idea no-md4 no-mdc2 no-ocb no-rc2 \
            no-rc4 no-rmd160 no-scrypt no-seed no-siphash no-siv no-sm2 no-sm3 no-sm4 no-whirlpool \
            CFLAGS="$common" > configure.log
        make -s -j "$JOBS" build_libs > make.log
        cp libcrypto.a libssl.a "$prefix/lib/"
        cp -R include/openssl "$prefix/include/"
    )
    describe libcrypto "$(version openssl)" "-lcrypto -ldl"
    describe libssl "$(version openssl)" "-lssl -lcrypto -ldl"
}

# Names, addresses one after the other, HTTP and SOCKS proxies. TLS is mfstore's, so libcurl has none, and remembers no
# certificates of the machine that built it. The addresses' resolver is the C library's, in a thread.
curl() {
    (
        cd "$sources/curl"
        ./configure --host="$host" --prefix="$prefix" --disable-shared --enable-static --disable-dependency-tracking \
            --without-ssl --without-zlib --without-brotli --without-zstd --without-libpsl --without-libidn2 \
            --without-nghttp2 --without-libssh2 --without-gssapi \
            --disable-ftp --disable-file --disable-ipfs --disable-ldap --disable-ldaps --disable-rtsp --disable-dict \
            --disable-telnet --disable-tftp --disable-pop3 --disable-imap --disable-smb --disable-smtp \
            --disable-gopher --disable-mqtt --disable-websockets --disable-manual --disable-docs \
            --disable-libcurl-option --disable-ntlm --disable-aws --disable-http-auth --disable-unix-sockets \
            --disable-cookies --disable-doh --disable-mime --disable-form-api --disable-dateparse --disable-netrc \
            --disable-progress-meter --disable-get-easy-options --disable-alt-svc --disable-hsts --disable-headers-api \
            --enable-http --enable-proxy --enable-ipv6 --enable-threaded-resolver --enable-symbol-hiding \
            CFLAGS="$common" > configure.log
        make -s -j "$JOBS" -C lib > make.log
        make -s -C lib install > install.log
        make -s -C include install >> install.log
        make -s install-pkgconfigDATA >> install.log
    )
}

# Side by side, since half of the time configure waits for one compiler after the other.
openssl & of_openssl=$!
curl & of_curl=$!
small_ones
wait $of_openssl
wait $of_curl
