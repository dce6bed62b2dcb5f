# cython: language_level=3
"""What transfer.pyx sees of engine.h, and of the kernels that the engine is built on."""

from libc.stdint cimport int64_t, uint8_t, uint64_t


cdef extern from "http/engine.h" nogil:
    ctypedef enum mf_operation "enum mf_operation":
        MF_OTHER
        MF_GET
        MF_HEAD
        MF_PUT
        MF_PART
        MF_DELETE

    ctypedef enum mf_dialect "enum mf_dialect":
        MF_S3
        MF_AZURE
        MF_GOOGLE

    int MF_NO_CRC

    ctypedef struct mf_text "struct mf_text":
        const char *at
        size_t n

    ctypedef struct mf_header "struct mf_header":
        mf_text name
        mf_text value

    ctypedef struct mf_route "struct mf_route":
        uint64_t id
        mf_operation operation
        mf_dialect dialect
        int sign_payload
        const char *method
        const char *origin
        const char *host
        const char *match_header
        mf_text path
        mf_text query
        mf_text region
        mf_text service
        mf_header *headers
        size_t headers_n
        int absolute
        int whole

    ctypedef struct mf_creds "struct mf_creds":
        uint64_t id
        mf_text access_key
        mf_text secret_key
        mf_text token

    ctypedef struct mf_part "struct mf_part":
        const uint8_t *at
        size_t n

    ctypedef struct mf_target "struct mf_target":
        uint8_t *at
        int fd
        int64_t offset
        size_t n

    ctypedef struct mf_xfer "struct mf_xfer":
        const mf_route *route
        const mf_creds *creds
        void *owner
        mf_xfer *own_next
        mf_xfer *own_prev
        double skew
        mf_text key
        mf_text if_match
        mf_text upload
        int has_key
        int has_range
        int cut
        int if_none_match
        int fresh
        int once
        unsigned part
        int64_t start
        int64_t stop
        mf_header *extra
        size_t extra_n
        mf_part *parts
        size_t parts_n
        size_t body_n
        int has_body
        int body_fd
        int64_t body_offset
        int crc_kind
        int has_target
        mf_target target
        uint64_t first_byte_ns
        uint64_t stall_ns
        int64_t wanted_bytes
        int64_t length
        int status
        int failure
        int error
        int reused
        char *message
        char *head
        size_t head_n
        uint8_t *data
        size_t data_n
        size_t received
        int has_crc
        uint64_t crc
        uint64_t submitted_ns
        uint64_t first_ns
        uint64_t finished_ns

    ctypedef struct mf_event "struct mf_event":
        mf_event *next
        mf_xfer *xfer
        int announced

    ctypedef struct mf_channel "struct mf_channel":
        pass

    ctypedef struct mf_config "struct mf_config":
        int verify
        int threads
        const char *ca_file
        const char *certificate
        const char *private_key
        const char *proxy
        const char *proxy_ca_file
        const char *proxy_certificate
        const char *proxy_private_key
        long connect_timeout_ms
        double max_bandwidth

    ctypedef struct mf_engine "struct mf_engine":
        pass

    uint64_t mf_next_id()
    mf_engine *mf_engine_new(const mf_config *config)
    int mf_engine_submit(mf_engine *engine, mf_channel *channel, mf_xfer **xfers, size_t n)
    void mf_engine_stop(mf_engine *engine)
    void mf_engine_free(mf_engine *engine)
    void mf_xfer_resume(mf_engine *engine, mf_xfer *xfer, mf_target target, int64_t stop, int64_t skip)
    void mf_xfer_cancel(mf_engine *engine, mf_xfer *xfer)
    size_t mf_xfer_flowed(const mf_xfer *xfer)
    mf_channel *mf_channel_new()
    void mf_channel_free(mf_channel *channel)
    int mf_channel_fileno(const mf_channel *channel)
    mf_event *mf_channel_take(mf_channel *channel)
    int mf_channel_wait(mf_channel *channel, int milliseconds)
    void mf_channel_drain(mf_channel *channel)


cdef extern from "http/clock.h" nogil:
    uint64_t mf_now_ns()


cdef extern from "crc/checksum.h" nogil:
    int MF_CRC_KINDS
    enum:
        MF_CRC_TEXT
    ctypedef enum mf_crc_kind "enum mf_crc_kind":
        MF_CRC32C
    const char **mf_crc_names
    uint64_t mf_crc_update(mf_crc_kind kind, uint64_t crc, const uint8_t *data, size_t n)
    size_t mf_crc_encode(mf_crc_kind kind, uint64_t crc, char *out)


cdef extern from "http/google.h" nogil:
    enum:
        MF_GOOGLE_HEAD
    size_t mf_google_upload_head(char *out, mf_text boundary, mf_text key, mf_text type, const char *crc)
    int mf_google_stored(const mf_xfer *xfer, const char *crc, mf_text *generation)
