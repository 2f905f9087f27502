/**
 * A firmware image that does one thing: it goes from real mode through protected mode into 64-bit mode, with paging on,
 * runs 40 million instructions there, and reports to QEMU's isa-debug-exit device. A processor needs some 10 ms for
 * them, QEMU's emulator 50 ms. A KVM may exist, let VMs be created and even enter 64-bit mode, and yet be of no use:
 * kvm_pvm (software-nested KVM) emulates a stock guest instruction by instruction and does not come to the end in 20 s.
 *
 * The layout is that of any PC firmware (Intel SDM volume 3, 10.1.4): the image ends at 4 GiB, the processor starts
 * 16 bytes before its end, and its last 128 KiB appear below 1 MiB too.
 */

/** Written to the debug console (port 0xe9) at the start and in 64-bit mode: tells how far a guest came. */
export const stages = { started: 'R', longMode: 'L' }

/** isa-debug-exit ends QEMU with the status (value << 1) | 1. */
export const debugExitPort = 0xf4
export const successStatus = (0x31 << 1) | 1

/** QEMU takes firmware in multiples of 64 KiB; all but some 250 bytes of it are zero. */
export function probeImage(): Buffer {
  const image = Buffer.alloc(0x10000)
  image.set(realMode, offset.realMode)
  image.set(protectedMode, offset.protectedMode)
  image.set(longMode, offset.longMode)
  image.set(gdt, offset.gdt)
  image.set([...uint16(gdt.length - 1), ...uint32(base + offset.gdt)], offset.gdtPointer)
  image.set([0xea, ...uint16(offset.realMode), ...uint16(base >> 4)], 0xfff0) // ljmp $0xf000:realMode
  return image
}

const base = 0xf0000
const offset = { realMode: 0x00, protectedMode: 0x40, longMode: 0x100, gdt: 0x140, gdtPointer: 0x160 }
/** The page tables are built in RAM, zeroed by QEMU: three pages from 1 MiB on. */
const tables = 0x100000
const selector = { code32: 0x08, data: 0x10, code64: 0x18 }

// Flat segments: 32-bit code, data, 64-bit code (Intel SDM volume 3, 3.4.5).
const gdt = [
  ...[0, 0, 0, 0, 0, 0, 0, 0],
  ...[0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0],
  ...[0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0],
  ...[0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0],
]

const realMode = [
  ...[0xfa], // cli
  ...say(stages.started),
  ...[0x2e, 0x66, 0x0f, 0x01, 0x16, ...uint16(offset.gdtPointer)], // lgdtl %cs:gdtPointer
  ...[0x0f, 0x20, 0xc0], // mov %cr0, %eax
  ...[0x0c, 0x01], // or $1, %al: protection
  ...[0x0f, 0x22, 0xc0], // mov %eax, %cr0
  ...[0x66, 0xea, ...uint32(base + offset.protectedMode), ...uint16(selector.code32)], // ljmpl
]

const protectedMode = [
  ...[0x66, 0xb8, ...uint16(selector.data)], // mov $data, %ax
  ...[0x8e, 0xd8], // mov %ax, %ds
  ...[0x8e, 0xd0], // mov %ax, %ss
  // Three levels of tables map the first 2 MiB onto themselves; 3 is present and writable, 0x80 a large page.
  ...store(tables, tables + 0x1000 + 3),
  ...store(tables + 0x1000, tables + 0x2000 + 3),
  ...store(tables + 0x2000, 0x80 + 3),
  ...[0x0f, 0x20, 0xe0], // mov %cr4, %eax
  ...[0x0c, 0x20], // or $0x20, %al: physical address extension
  ...[0x0f, 0x22, 0xe0], // mov %eax, %cr4
  ...[0xb8, ...uint32(tables)], // mov $tables, %eax
  ...[0x0f, 0x22, 0xd8], // mov %eax, %cr3
  ...[0xb9, ...uint32(0xc0000080)], // mov $EFER, %ecx
  ...[0x0f, 0x32], // rdmsr
  ...[0x0d, ...uint32(0x100)], // or $0x100, %eax: long mode
  ...[0x0f, 0x30], // wrmsr
  ...[0x0f, 0x20, 0xc0], // mov %cr0, %eax
  ...[0x0d, ...uint32(0x80000000)], // or $0x80000000, %eax: paging
  ...[0x0f, 0x22, 0xc0], // mov %eax, %cr0
  ...[0xea, ...uint32(base + offset.longMode), ...uint16(selector.code64)], // ljmp
]

const longMode = [
  ...say(stages.longMode),
  ...[0xb9, ...uint32(20_000_000)], // mov $20000000, %ecx
  ...[0xff, 0xc9], // 1: dec %ecx
  ...[0x75, 0xfc], // jnz 1b
  ...[0x48, 0xb8, ...uint32(0), ...uint32(0x31)], // mov $0x3100000000, %rax: in 32-bit mode this is other code
  ...[0x48, 0xc1, 0xe8, 0x20], // shr $32, %rax
  ...[0xe6, debugExitPort], // out %al, $port
  ...[0xf4, 0xeb, 0xfd], // 1: hlt; jmp 1b
]

/** mov $letter, %al; out %al, $0xe9 */
function say(letter: string): number[] {
  return [0xb0, letter.charCodeAt(0), 0xe6, 0xe9]
}

/** movl $value, address */
function store(address: number, value: number): number[] {
  return [0xc7, 0x05, ...uint32(address), ...uint32(value)]
}

function uint16(value: number): number[] {
  return [value & 0xff, value >>> 8]
}

function uint32(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]
}
