/* Lines of tapd's control socket and its spec file: no crash, and what was understood is written back the same.
 *
 * clang -fsanitize=fuzzer,address,undefined; corpus in tests/fuzz/corpus/tapd_control. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "rpc/base/check.h"
#include "storage/tapd/control_protocol.h"
#include "storage/tapd/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_up(const struct value *words)
{
    for (uint32_t i = 0; i < words->len; i++) {
        const char *name = words->members[i].name;

        (void)argument_int(words, name, 0);
        (void)argument_bool(words, name, false);
    }
}

static void as_spec(struct arena *a, const struct value *words)
{
    struct spec spec, copy;

    if (!spec_from(words, &spec))
        return;
    CHECK(spec.size >= 0 && (spec.size & 511) == 0 && spec.path[0] != '\0');
    spec_copy(&copy, &spec);
    struct value one = spec_value(a, &spec), other = spec_value(a, &copy);
    CHECK(value_equal(&one, &other));
    spec_release(&spec);
    spec_release(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT text = TEXT_INIT;
    struct value words, again;
    const char *verb, *verb_again;

    if (!control_message_parse(a, (const char *)data, size, &verb, &words))
        return 0;
    control_message_write(&text, verb, &words);
    if (text.len <= CONTROL_LINE_MAX) { /* escapes may have become more */
        CHECK(control_message_parse(a, text.bytes, text.len, &verb_again, &again));
        CHECK(strcmp(verb, verb_again) == 0 && value_equal(&words, &again));
    }
    look_up(&words);
    as_spec(a, &words);
    return 0;
}
