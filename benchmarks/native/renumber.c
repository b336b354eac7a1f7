/* Rising ids for a pool of frames that is sent again and again: decimal digits are added to in place. */
#include <stdint.h>

struct field {
    uint32_t last_digit; /* offset of the number's last digit in the pool */
    uint32_t step;       /* added in every round */
};

/* Add each field's step to the ASCII number that ends at it. The generator leaves room: no number gains a digit. */
void renumber(char *pool, const struct field *fields, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        char *digit = pool + fields[i].last_digit;
        uint32_t carry = fields[i].step;
        while (carry) {
            uint32_t sum = (uint32_t)(*digit - '0') + carry;
            *digit-- = (char)('0' + sum % 10);
            carry = sum / 10;
        }
    }
}
