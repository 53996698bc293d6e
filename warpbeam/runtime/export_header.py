"""The headers of an exported model: C11 that is also C++, and a C++ class over it."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from .abi import HEADER_PATH
from .manifest import Manifest, TensorSpec
from .shape_expr import show

#: bytes of a context before its parameters: a wb_ctx (256) and what belongs to the interface
CONTEXT_HEADER = 320

_TYPES = {
    "float32": "float", "float64": "double", "bool": "uint8_t", "float16": "uint16_t", "bfloat16": "uint16_t",
    **{f"{u}int{b}": f"{u}int{b}_t" for u in ("", "u") for b in (8, 16, 32, 64)},
}  # fmt: skip
_TAKEN = frozenset(
    """auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while bool true
    false class delete new this throw try catch template typename using namespace public private protected operator
    friend virtual export import module and or not xor nullptr explicit mutable context args n""".split()  # noqa: SIM905
)

#: what a namespace may not be called: words of C++, and functions of C that the standard headers declare
_TAKEN_IN_CPP = (_TAKEN - {"context", "args", "n"}) | frozenset(
    """abort abs acos alignas alignof asin atan atexit atof atoi bsearch calloc ceil clock compl concept const_cast
    constexpr cos decltype difftime div dynamic_cast erf except exit exp explicit fabs fclose fflush fgetc final floor
    fmod fopen fputc fread free frexp fwrite getc getenv gets hypot index isalpha j0 j1 jn labs ldexp link log lround
    malloc mblen memchr memcmp memcpy memset modf noexcept perror pipe pow printf putc puts qsort raise rand read
    realloc remove rename requires rewind rint round scanf select setbuf sin sleep sqrt srand std strcat strlen strtol
    system tan tanh time tmpnam trunc typeid ungetc wait write xor y0 y1 yn""".split()  # noqa: SIM905
)


def identifiers(names: Sequence[str], taken: frozenset[str] = _TAKEN) -> list[str]:
    """A C identifier of its own for each name."""
    out: list[str] = []
    for k, name in enumerate(names):
        text = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or f"tensor{k}"
        text = text if not text[0].isdigit() else f"t{text}"
        word, count = text, 1
        while word in taken or word in out:
            count += 1
            word = f"{text}_{count}"
        out.append(word)
    return out


def c_type(dtype: str) -> str:
    """The C type of an element."""
    return _TYPES.get(dtype, "uint8_t")


def is_static(manifest: Manifest) -> bool:
    """Whether all shapes are numbers."""
    return all(isinstance(e, int) for s in (*manifest.inputs, *manifest.outputs) for e in s.shape)


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join(e if isinstance(e, str) else show(e) for e in spec.shape) + "]"


def _elements(spec: TensorSpec) -> int | None:
    count = 1
    for extent in spec.shape:
        if not isinstance(extent, int):
            return None
        count *= extent
    return count


def _comment(text: str) -> str:
    return text.replace("*/", "* /").replace("\n", " ").replace("\\", "/")


def _described(manifest: Manifest) -> list[str]:
    lines = [
        f" * {_comment(manifest.name)}, compiled by Warpbeam {manifest.compiler_version} for {manifest.target}.",
        " *",
    ]
    for group, specs in (("Input", manifest.inputs), ("Output", manifest.outputs), ("Parameter", manifest.params)):
        for i, s in enumerate(specs):
            lines.append(f" * {group} {i}: {_comment(s.name)}, {s.dtype} {_comment(_shape(s))}")
    return lines


def arguments(manifest: Manifest) -> tuple[list[str], list[str]]:
    """Names and C declarations of the arguments of `run` after the context."""
    names = identifiers([s.name for s in (*manifest.inputs, *manifest.outputs)])
    static, count = is_static(manifest), len(manifest.inputs)
    out = []
    for i, (name, spec) in enumerate(zip(names, (*manifest.inputs, *manifest.outputs), strict=True)):
        if not static:
            out.append(f"wb_tensor* {name}")
        else:
            out.append(f"{'const ' if i < count else ''}{c_type(spec.dtype)}* {name}")
    return names, out


def _macros(manifest: Manifest, name: str, params: int) -> list[str]:
    upper = name.upper()
    lines = [
        f"#define {upper}_NUM_INPUTS {len(manifest.inputs)}",
        f"#define {upper}_NUM_OUTPUTS {len(manifest.outputs)}",
    ]
    for group, specs in (("INPUT", manifest.inputs), ("OUTPUT", manifest.outputs), ("PARAM", manifest.params)):
        for i, spec in enumerate(specs):
            size = _elements(spec)
            lines.append(f'#define {upper}_{group}_{i}_NAME "{_escaped(spec.name)}"')
            lines.append(f"#define {upper}_{group}_{i}_NDIM {len(spec.shape)}")
            if size is not None:
                lines.append(f"#define {upper}_{group}_{i}_SIZE {size} /* elements */")
            if size is not None and spec.shape:
                lines.append(f"#define {upper}_{group}_{i}_SHAPE {{{', '.join(map(str, spec.shape))}}}")
    size = context_bytes(manifest, params)
    if size is not None:
        lines.append(f"#define {upper}_ARENA_BYTES {manifest.arena_bytes} /* scratch memory */")
        lines.append(f"#define {upper}_CONTEXT_BYTES {size} /* of a context in memory aligned to 64 */")
    return lines


def context_bytes(manifest: Manifest, params: int) -> int | None:
    """Bytes of a context in the caller's memory; None where they depend on sizes known at run time."""
    if not isinstance(manifest.arena_bytes, int):
        return None
    return CONTEXT_HEADER + -(-params // 64) * 64 + -(-manifest.arena_bytes // 64) * 64


def _escaped(text: str) -> str:
    return "".join(
        c if 32 <= ord(c) < 127 and c not in '"\\?' else "".join(f"\\{b:03o}" for b in c.encode()) for c in text
    )


def c_header(manifest: Manifest, name: str, freestanding: bool, form: str, extra: str = "", params: int = 0) -> str:
    """The header of an exported model.

    Args:
        name: prefix of the functions.
        freestanding: whether contexts live in the caller's memory only.
        form: "object" for compiled code, "c" for C source, which has no threads.
        extra: further declarations.
        params: bytes of the mutable parameters.
    """
    guard = f"{name.upper()}_H"
    _, args = arguments(manifest)
    own = [_CONTEXT, *([] if freestanding else [_HOSTED]), _IN_MEMORY, _RUN if is_static(manifest) else _RUN_TENSORS]
    own += ["$RUN", "", _CALLS]
    threads = not freestanding and form == "object"
    own += [_THREADS] if threads else []
    own += [_PARAMS] if manifest.params else []
    late = any(s.late for s in manifest.outputs)
    null = "\n/* A context of NULL stands for a serial one that lives for this call. */" if threads else ""
    said = _LATE if late else null
    run = f"int32_t {name}_run({', '.join([f'{name}_context* context', *args])});"
    body = string.Template("\n".join([*own, _QUESTIONS])).substitute(N=f"{name}_", NULL=said, RUN=run)
    parts = ["/*", *_described(manifest), " */", f"#ifndef {guard}", f"#define {guard}", "", _base(), "",
             "#ifdef __cplusplus", 'extern "C" {', "#endif", "", *_macros(manifest, name, params), "", body, extra,
             "#ifdef __cplusplus", '} /* extern "C" */', "#endif", "", f"#endif /* {guard} */", ""]  # fmt: skip
    return "\n".join(parts)


def _base() -> str:
    """The binary interface, so that one header is enough."""
    text = HEADER_PATH.read_text(encoding="utf-8")
    return text[text.index("#ifndef WARPBEAM_H") :].strip()


_CONTEXT = """\
/* What one call at a time needs: scratch memory, mutable parameters, the text of the last error. Calls in parallel use
 * several. It begins with a wb_ctx. */
typedef struct ${N}context ${N}context;
"""
_HOSTED = """\
/* A context in memory of its own; NULL if there is none left. */
${N}context* ${N}create(void);
/* Gives a context back. With the last one the threads end, and the library may be unloaded. */
void ${N}destroy(${N}context* context);
"""
_IN_MEMORY = """\
/* A context in `bytes` of the caller's memory, at least ${N}context_bytes(); what is more is scratch memory.
 * 63 bytes more are needed where the memory is not aligned to 64. It is serial, and needs no destroy. NULL if the
 * memory is too small. */
${N}context* ${N}create_in(void* memory, int64_t bytes);
int64_t ${N}context_bytes(void);
"""
_RUN = """\
/* Runs the model on compact row-major data: inputs, then outputs. 0 = done, else see ${N}error. */$NULL"""
_RUN_TENSORS = """\
/* Runs the model on compact row-major tensors: inputs, then outputs, all with data and shape. 0 = done, else see
 * ${N}error. */$NULL"""
_LATE = """
/* An output whose shape depends on data is given with data NULL: its shape is written, and data points to memory of the
 * context that is good until its next call. With data, its shape must be what comes out. */"""
_CALLS = """\
/* The same with an array of tensors: the inputs, then the outputs. */
int32_t ${N}call(${N}context* context, wb_tensor** args, int32_t n);
/* Only writes the shapes of the outputs into their `shape` arrays, as they follow from the inputs' shapes. */
int32_t ${N}shapes(${N}context* context, wb_tensor** args, int32_t n);
/* Why the last call with this context failed; empty if it did not. Never NULL. */
const char* ${N}error(const ${N}context* context);
/* The model's entry itself, for a wb_ctx that the caller fills; `constants` is ${N}constants(). */
int32_t ${N}entry(wb_ctx* context, wb_tensor** args, int32_t n);
const void* ${N}constants(void);
"""
_THREADS = """\
/* Threads that calls with this context use, 0 = one for each processor; gives the number that it is. */
int32_t ${N}set_threads(${N}context* context, int32_t threads);
"""
_PARAMS = """\
/* The value of a mutable parameter in a context; NULL if there is none of this number. */
void* ${N}param(${N}context* context, int32_t index);
int32_t ${N}num_params(void);
const char* ${N}param_name(int32_t index);
const char* ${N}param_dtype(int32_t index);
int32_t ${N}param_ndim(int32_t index);
const int64_t* ${N}param_shape(int32_t index);
"""
_QUESTIONS = """\
/* What the model is. Names, element types ("float32") and shapes are NULL for a number that does not exist; an
 * extent that is not fixed is -1. */
const char* ${N}name(void);
const char* ${N}compiler(void);
int32_t ${N}abi(void);
int32_t ${N}num_inputs(void);
int32_t ${N}num_outputs(void);
const char* ${N}input_name(int32_t index);
const char* ${N}input_dtype(int32_t index);
int32_t ${N}input_ndim(int32_t index);
const int64_t* ${N}input_shape(int32_t index);
const char* ${N}output_name(int32_t index);
const char* ${N}output_dtype(int32_t index);
int32_t ${N}output_ndim(int32_t index);
const int64_t* ${N}output_shape(int32_t index);
"""


def cpp_header(manifest: Manifest, name: str, header: str, freestanding: bool, form: str = "object") -> str:
    """A C++ class that owns a context and throws where the C functions fail.

    Args:
        form: as `c_header` takes it.
    """
    names, args = arguments(manifest)
    guard = f"{name.upper()}_HPP"
    more = [_CPP_PARAM] if manifest.params else []
    more += [_CPP_THREADS] if not freestanding and form == "object" else []
    make = string.Template("".join([*more, _CPP_IN if freestanding else _CPP_OWN])).substitute(NAME=name)
    space = f"{name}_" if name in _TAKEN_IN_CPP else name
    values = {"GUARD": guard, "HEADER": header, "NAME": name, "SPACE": space, "MAKE": make, "ARGS": ", ".join(args),
              "VALUES": ", ".join(["context_.get()", *names])}  # fmt: skip
    return string.Template(_CPP).substitute(values)


_CPP_PARAM = """\
  /* The value of a mutable parameter; throws std::out_of_range if there is none of this number. */
  template <class T>
  T* param(std::int32_t index) {
    void* found = ${NAME}_param(context_.get(), index);
    if (found == nullptr) throw std::out_of_range("there is no such parameter");
    return static_cast<T*>(found);
  }

"""
_CPP_THREADS = """\
  /* Threads that calls use, 0 = one for each processor; gives the number that it is. */
  std::int32_t set_threads(std::int32_t threads) { return ${NAME}_set_threads(context_.get(), threads); }

"""
_CPP_OWN = """  /* Takes memory from the system; throws std::bad_alloc if there is none. */
  Model() : context_(${NAME}_create(), &${NAME}_destroy) {
    if (!context_) throw std::bad_alloc();
  }

 private:
  std::unique_ptr<${NAME}_context, void (*)(${NAME}_context*)> context_;
"""
_CPP_IN = """  /* Lives in memory of its own; `scratch`: bytes of scratch memory beyond what is known before a call. */
  explicit Model(std::size_t scratch = 0)
      : memory_(static_cast<std::size_t>(${NAME}_context_bytes()) + 64 + scratch),
        context_(${NAME}_create_in(memory_.data(), static_cast<std::int64_t>(memory_.size())), &leave) {
    if (!context_) throw std::bad_alloc();
  }

 private:
  static void leave(${NAME}_context*) {}
  std::vector<unsigned char> memory_;
  std::unique_ptr<${NAME}_context, void (*)(${NAME}_context*)> context_;
"""
_CPP = """#ifndef $GUARD
#define $GUARD

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "$HEADER"

namespace $SPACE {

/* The model with a context of its own. One call at a time; threads use a Model each. */
class Model {
 public:
  /* Runs the model; throws std::runtime_error with the reason if it fails. */
  void run($ARGS) {
    check(${NAME}_run($VALUES));
  }

  /* The same on tensors: the inputs, then the outputs. */
  void call(std::vector<wb_tensor*> args) {
    check(${NAME}_call(context_.get(), args.data(), static_cast<std::int32_t>(args.size())));
  }

  /* Only writes the outputs' shapes. */
  void shapes(std::vector<wb_tensor*> args) {
    check(${NAME}_shapes(context_.get(), args.data(), static_cast<std::int32_t>(args.size())));
  }

  ${NAME}_context* context() { return context_.get(); }

$MAKE
  void check(std::int32_t status) {
    if (status != 0) throw std::runtime_error(${NAME}_error(context_.get()));
  }
};

}  // namespace $SPACE

#endif  // $GUARD
"""
