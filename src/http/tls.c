#include "http/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

static SSL_CTX *refused(SSL_CTX *context, const char *what, const char *file, char *words, size_t words_n) {
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    snprintf(words, words_n, "%s%s%s: %s", what, file ? " " : "", file ? file : "", reason ? reason : "no memory");
    ERR_clear_error();
    SSL_CTX_free(context);
    return NULL;
}

SSL_CTX *mf_tls_context(int verify, const char *ca_file, const char *certificate, const char *private_key, char *words,
                        size_t words_n) {
    static const unsigned char protocols[] = "\x08http/1.1";
    SSL_CTX *context;
    ERR_clear_error();
    context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) ||
        SSL_CTX_set_alpn_protos(context, protocols, sizeof protocols - 1))
        return refused(context, "TLS", NULL, words, words_n);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    /* A stream that ends without a goodbye may have been cut, whatever openssl.cnf says. */
    SSL_CTX_clear_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(context, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    /* Whoever trusts an intermediate or a server's own certificate says so by putting it into the bundle. */
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
    X509_VERIFY_PARAM_set_hostflags(SSL_CTX_get0_param(context), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (verify && !(ca_file ? SSL_CTX_load_verify_file(context, ca_file) : SSL_CTX_set_default_verify_paths(context)))
        return refused(context, "certificates", ca_file, words, words_n);
    if (certificate) {
        if (!private_key)
            private_key = certificate;
        if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
            return refused(context, "client certificate", certificate, words, words_n);
        if (SSL_CTX_use_PrivateKey_file(context, private_key, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_check_private_key(context) != 1)
            return refused(context, "client key", private_key, words, words_n);
    }
    return context;
}

void mf_tls_context_free(SSL_CTX *context) {
    SSL_CTX_free(context);
}

SSL *mf_tls_client(SSL_CTX *context, const char *host) {
    unsigned char address[sizeof(struct in6_addr)];
    SSL *tls = SSL_new(context);
    int fine;
    if (!tls)
        return NULL;
    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
        fine = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), host);
    else {
        char name[256];
        size_t n = strlen(host);
        if (n && host[n - 1] == '.') /* says that the name is whole; certificates and servers know it without */
            n--;
        fine = n < sizeof name;
        if (fine) {
            memcpy(name, host, n);
            name[n] = 0;
            fine = SSL_set1_host(tls, name) && SSL_set_tlsext_host_name(tls, name);
        }
    }
    if (fine)
        return tls;
    SSL_free(tls);
    return NULL;
}
