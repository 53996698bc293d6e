"""Texts of the projects that `micro` writes: start-up code, memory map, build file, example program."""

STARTUP = """\
/* Start-up code for {board}: {about}. Output and the end of the program go through semihosting, which
 * emulators and debug probes serve; replace `board_write` and `board_exit` on a device without either. */
#include <stddef.h>
#include <stdint.h>

extern uint32_t board_stack_top[], board_data[], board_data_end[], board_data_load[], board_bss[], board_bss_end[];
int main(void);
void board_start(void);
void board_write(const char* text);
void board_exit(int status);

static int semihosting(int operation, const void* argument) {{
  register int r0 __asm__("r0") = operation;
  register const void* r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}}

void board_write(const char* text) {{ semihosting(0x04, text); }}

void board_exit(int status) {{
  const uint32_t block[2] = {{0x20026, (uint32_t)status}}; /* ADP_Stopped_ApplicationExit */
  semihosting(0x20, block);
  for (;;) {{
  }}
}}

static void fault(void) {{
  board_write("fault\\n");
  board_exit(70);
}}

/* Runs before any variable has its value, and before the floating-point unit is on. */
__attribute__((noreturn, used, target("general-regs-only"))) void board_start(void) {{
{fpu}  for (uint32_t *from = board_data_load, *to = board_data; to < board_data_end;) *to++ = *from++;
  for (uint32_t* to = board_bss; to < board_bss_end;) *to++ = 0;
  board_exit(main());
  for (;;) {{
  }}
}}

__attribute__((section(".vectors"), used)) static void* const vectors[16] = {{
    board_stack_top, (void*)board_start, (void*)fault, (void*)fault, (void*)fault, (void*)fault, (void*)fault,
}};
"""

FPU = """  *(volatile uint32_t*)0xE000ED88 |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 */
  __asm__ volatile("dsb\\n\\tisb" ::: "memory");
"""

MEMORY = """\
/* {board}: code and weights where the processor boots from, variables in the data memory. */
ENTRY(board_start)
MEMORY {{
  CODE (rx)   : ORIGIN = {code[0]:#x}, LENGTH = {code[1]:#x}
  DATA (rwx)  : ORIGIN = {data[0]:#x}, LENGTH = {data[1]:#x}
  LARGE (rwx) : ORIGIN = {large[0]:#x}, LENGTH = {large[1]:#x}
}}
board_stack_top = ORIGIN(DATA) + LENGTH(DATA);
SECTIONS {{
  .vectors : {{ KEEP(*(.vectors)) }} > CODE
  .text : {{ *(.text*) *(.ARM.extab*) *(.ARM.exidx*) }} > CODE
  .large : {{ {large_input} }} > LARGE
  .rodata : {{ *(.rodata*) . = ALIGN(4); }} > CODE
  .data : {{ board_data = .; *(.data*) . = ALIGN(4); board_data_end = .; }} > DATA AT > CODE
  board_data_load = LOADADDR(.data);
  .bss (NOLOAD) : {{ board_bss = .; *(.bss*) *(COMMON) . = ALIGN(4); board_bss_end = .; }} > DATA
  .arena (NOLOAD) : {{ *(.arena*) }} > {arena_memory}
  ASSERT(board_bss_end + {stack} <= board_stack_top, "no room is left for the stack")
}}
"""

MAKEFILE = """\
# make: builds {name}.elf and prints what it needs; make run: runs it in the emulator.
CC = arm-none-eabi-gcc
FLAGS = {flags} -O2 -std=c11 -ffp-contract=off -ffunction-sections -fdata-sections -Wall -Wextra

{name}.elf: main.c startup.c {name}.c {name}.h inputs.h memory.ld
\t$(CC) $(FLAGS) main.c startup.c {name}.c -T memory.ld -nostartfiles -Wl,--gc-sections --specs=nosys.specs -lm -o $@
\tarm-none-eabi-size $@

run: {name}.elf
\t{emulator} -display none -monitor none -serial none -chardev stdio,id=out \\
\t  -semihosting-config enable=on,chardev=out -kernel $<
"""

MAIN = """\
/* Runs the model once on the arrays of inputs.h and prints its outputs, one hexadecimal word of 32 bits an entry. */
#include <stddef.h>
#include <stdint.h>
#include "{name}.h"
#include "inputs.h"

void board_write(const char* text);

static _Alignas(64) unsigned char memory[{upper}_CONTEXT_BYTES] __attribute__((section(".arena")));
{outputs}

static void print_words(const char* title, const void* data, size_t bytes) {{
  static const char digits[] = "0123456789abcdef";
  const unsigned char* at = data;
  board_write(title);
  for (size_t i = 0; i < bytes; i += 4) {{
    char text[10];
    for (size_t k = 0; k < 8; ++k) {{
      const size_t place = i + 3 - k / 2;
      const unsigned byte = place < bytes ? at[place] : 0;
      text[k] = digits[(k % 2 ? byte : byte >> 4) & 15];
    }}
    text[8] = i / 4 % 8 == 7 || i + 4 >= bytes ? '\\n' : ' ';
    text[9] = 0;
    board_write(text);
  }}
}}

int main(void) {{
  {name}_context* context = {name}_create_in(memory, sizeof memory);
  if (!context) return 1;
  if ({name}_run(context, {arguments})) {{
    board_write({name}_error(context));
    return 2;
  }}
{prints}
  return 0;
}}
"""

README = """\
# {name} on {board}

{about}. Made by `warpbeam micro`.

    make        # needs arm-none-eabi-gcc with newlib
    make run    # needs qemu-system-arm

| what | bytes | where |
|-|-|-|
| weights | {constants} | {weights_place} |
| scratch memory and context | {context} | {arena_place} |
| stack, reserved | {stack} | data memory |

The code's size is printed by `make`. `{name}.c` and `{name}.h` are the model, C11 without malloc; `startup.c` and
`memory.ld` are for this board; `main.c` is an example. The results are those of the same source on any other machine,
bit for bit, where float32 is IEEE.
"""
