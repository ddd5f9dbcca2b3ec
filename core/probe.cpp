// What this processor can do, asked of it by CPUID; compiled for any x86-64. As a Python module it is
// what `afafilter._core` asks before it loads a build; as a program (AFA_PROGRAM) what the build asks.
#include <stdio.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

static bool has(unsigned word, int bit) { return ((word >> bit) & 1u) != 0; }

// Registers that the operating system saves (XGETBV): without it AVX exists but cannot be used.
static unsigned saved_state() {
    unsigned low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

// 1 to 4: the level of the x86-64 psABI.
static int level() {
    unsigned a = 0, b = 0, c1 = 0, d = 0, b7 = 0, c7 = 0, extended = 0;
    if (__get_cpuid(1, &a, &b, &c1, &d) == 0) return 1;
    const bool v2 = has(c1, 0) && has(c1, 9) && has(c1, 13) && has(c1, 19) && has(c1, 20) && has(c1, 23);
    if (!v2) return 1;
    if (__get_cpuid_count(7, 0, &a, &b7, &c7, &d) == 0) return 2;
    if (__get_cpuid(0x80000001, &a, &b, &extended, &d) == 0) return 2;
    const unsigned state = has(c1, 27) ? saved_state() : 0u;
    const bool v3 = has(c1, 12) && has(c1, 22) && has(c1, 28) && has(c1, 29) && has(b7, 3) && has(b7, 5) &&
                    has(b7, 8) && has(extended, 5) && (state & 0x6u) == 0x6u;
    if (!v3) return 2;
    const bool v4 = has(b7, 16) && has(b7, 17) && has(b7, 28) && has(b7, 30) && has(b7, 31) && (state & 0xe6u) == 0xe6u;
    return v4 ? 4 : 3;
}
#else
static int level() { return 0; }
#endif

#ifdef AFA_PROGRAM
int main() { return printf("%d\n", level()) < 0; }
#else
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

static int execute(PyObject* module) { return PyModule_AddIntConstant(module, "level", level()); }
static PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(&execute)}, {0, nullptr}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_probe", nullptr, 0, nullptr, slots, nullptr, nullptr, nullptr};
PyMODINIT_FUNC PyInit__probe() { return PyModuleDef_Init(&definition); }
#endif
