import { constants } from 'node:os'

/**
 * A Linux program of some 450 bytes for x86-64 that reads what a shell cannot: raw CPUID leaves, where a feature shows
 * that firmware or kernel have taken from /proc/cpuinfo, and KVM's capabilities. CPUID is not privileged, so it needs
 * neither root nor the module cpuid. It writes, as 32-bit words: eax, ebx, ecx and edx of each leaf; the descriptor
 * that opening /dev/kvm gave, or -errno, and if it opened KVM's answer for each capability and to KVM_CREATE_VM.
 */
export function cpuReader(): Buffer {
  const table = [...leaves.flat(), ...Object.values(capabilities)].flatMap(uint32)
  const bytes = [...header(code.length + table.length), ...code, ...table]
  return Buffer.from(bytes)
}

/** Leaf and subleaf: Intel SDM volume 2 CPUID, AMD APM volume 3 E.3 and E.4, from 0x40000000 on the hypervisor's. */
export const leaves: readonly (readonly [number, number])[] = [
  ...([0, 1, 7] as const).map((leaf) => [leaf, 0] as const),
  ...([0, 1, 2, 3, 4, 6, 0xa, 0x100, 0x101] as const).map((leaf) => [0x40000000 + leaf, 0] as const),
  ...([0, 1, 8, 0xa, 0x1f] as const).map((leaf) => [0x80000000 + leaf, 0] as const),
]

/** Numbers of KVM_CHECK_EXTENSION: Linux, include/uapi/linux/kvm.h. */
export const capabilities = {
  nrVcpus: 9,
  maxVcpus: 66,
  s390Hpage: 156,
  nestedState: 157,
  ppcNestedHv: 160,
  armEl2: 240,
  armEl2E2h0: 241,
}

export interface CpuReading {
  /** `leaf:subleaf`, both in hexadecimal, to eax, ebx, ecx and edx in hexadecimal. */
  leaves: Record<string, string>
  /** The name of the error by which /dev/kvm does not open, such as `EACCES`. */
  openError?: string
  capabilities?: Record<string, number>
  /** `ok`, or the name of an error such as `EBUSY`. */
  createVm?: string
}

/** Reads what the program has written; undefined when it did not come to its end. */
export function readCpuWords(words: readonly number[]): CpuReading | undefined {
  const [opened, ...answers] = words.slice(4 * leaves.length)
  if (opened === undefined) return undefined
  const reading: CpuReading = { leaves: readLeaves(words) }
  if ((opened | 0) < 0) return { ...reading, openError: errnoName(-(opened | 0)) }
  const names = Object.keys(capabilities)
  const created = answers[names.length]
  if (created === undefined) return reading
  return {
    ...reading,
    capabilities: Object.fromEntries(names.map((name, index) => [name, (answers[index] ?? 0) | 0])),
    createVm: (created | 0) < 0 ? errnoName(-(created | 0)) : 'ok',
  }
}

/** Only those that the processor has: beyond its highest leaf it answers with another one's words. */
export function readLeaves(words: readonly number[]): CpuReading['leaves'] {
  const registers = leaves.map((_, index) => words.slice(4 * index, 4 * index + 4))
  const of = (leaf: number) => registers[leaves.findIndex(([other]) => other === leaf)] ?? []
  const hypervisor = (of(1)[2] ?? 0) >>> 31 === 1
  const there = (leaf: number) => {
    const range = leaf >= 0x40000100 && leaf < 0x80000000 ? 0x40000100 : (leaf & 0xc0000000) >>> 0
    const [highest = 0] = of(range)
    return highest >= leaf && highest <= range + 0xffff && (range >>> 30 !== 1 || hypervisor)
  }
  const named = leaves.map(([leaf, subleaf], index) => [leafName(leaf, subleaf), registers[index] ?? []] as const)
  return Object.fromEntries(
    named
      .filter((_, index) => there(leaves[index]?.[0] ?? 0))
      .map(([name, values]) => [name, values.map(hex).join(' ')]),
  )
}

function hex(word: number): string {
  return word.toString(16).padStart(8, '0')
}

export function leafName(leaf: number, subleaf = 0): string {
  return `${leaf.toString(16)}:${subleaf.toString(16)}`
}

function errnoName(errno: number): string {
  return Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`
}

/** An ELF file with one segment, which holds all of it (elf(5)). */
function header(size: number): number[] {
  const base = 0x400000
  const headers = 64 + 56
  return [
    ...[0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, ...Array(9).fill(0)],
    ...[...uint16(2), ...uint16(62), ...uint32(1), ...uint64(base + headers), ...uint64(64), ...uint64(0)],
    ...[...uint32(0), ...uint16(64), ...uint16(56), ...uint16(1), ...uint16(0), ...uint16(0), ...uint16(0)],
    ...[...uint32(1), ...uint32(5), ...uint64(0), ...uint64(base), ...uint64(base)],
    ...[...uint64(headers + size), ...uint64(headers + size), ...uint64(0x1000)],
  ]
}

function uint16(value: number): number[] {
  return [value & 0xff, value >>> 8]
}

function uint32(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]
}

function uint64(value: number): number[] {
  return [...uint32(value), 0, 0, 0, 0]
}

// Written for the assembler of binutils; the tables of leaves and capabilities follow it.
const code = [
  ...[0x48, 0x83, 0xec, 0x10], // sub $16, %rsp
  ...[0x4c, 0x8d, 0x25, 0xab, 0, 0, 0], // lea table(%rip), %r12
  ...[0x41, 0xbd, ...uint32(leaves.length)], // mov $leaves, %r13d
  ...[0x41, 0x8b, 0x04, 0x24], // leaf: mov (%r12), %eax
  ...[0x41, 0x8b, 0x4c, 0x24, 0x04], // mov 4(%r12), %ecx
  ...[0x0f, 0xa2], // cpuid
  ...[0x89, 0x04, 0x24], // mov %eax, (%rsp)
  ...[0x89, 0x5c, 0x24, 0x04], // mov %ebx, 4(%rsp)
  ...[0x89, 0x4c, 0x24, 0x08], // mov %ecx, 8(%rsp)
  ...[0x89, 0x54, 0x24, 0x0c], // mov %edx, 12(%rsp)
  ...[0x6a, 0x10, 0x5a], // push $16; pop %rdx
  ...[0xe8, 0x6d, 0, 0, 0], // call write
  ...[0x49, 0x83, 0xc4, 0x08], // add $8, %r12
  ...[0x41, 0xff, 0xcd], // dec %r13d
  ...[0x75, 0xd5], // jnz leaf
  ...[0x6a, 0x02, 0x58], // push $SYS_open; pop %rax
  ...[0x48, 0x8d, 0x3d, 0x67, 0, 0, 0], // lea path(%rip), %rdi
  ...[0x6a, 0x02, 0x5e], // push $O_RDWR; pop %rsi
  ...[0x0f, 0x05], // syscall
  ...[0x41, 0x89, 0xc6], // mov %eax, %r14d
  ...[0xe8, 0x46, 0, 0, 0], // call say
  ...[0x45, 0x85, 0xf6], // test %r14d, %r14d
  ...[0x78, 0x29], // js done
  ...[0x41, 0xbd, ...uint32(Object.keys(capabilities).length)], // mov $capabilities, %r13d
  ...[0xbe, ...uint32(0xae03)], // capability: mov $KVM_CHECK_EXTENSION, %esi
  ...[0x41, 0x8b, 0x14, 0x24], // mov (%r12), %edx
  ...[0xe8, 0x1c, 0, 0, 0], // call kvm
  ...[0x49, 0x83, 0xc4, 0x04], // add $4, %r12
  ...[0x41, 0xff, 0xcd], // dec %r13d
  ...[0x75, 0xe9], // jnz capability
  ...[0xbe, ...uint32(0xae01)], // mov $KVM_CREATE_VM, %esi
  ...[0x31, 0xd2], // xor %edx, %edx
  ...[0xe8, 0x07, 0, 0, 0], // call kvm
  ...[0x6a, 0x3c, 0x58], // done: push $SYS_exit; pop %rax
  ...[0x31, 0xff], // xor %edi, %edi
  ...[0x0f, 0x05], // syscall
  ...[0x6a, 0x10, 0x58], // kvm: push $SYS_ioctl; pop %rax
  ...[0x44, 0x89, 0xf7], // mov %r14d, %edi
  ...[0x0f, 0x05], // syscall
  ...[0x89, 0x44, 0x24, 0x08], // mov %eax, 8(%rsp)
  ...[0x6a, 0x04, 0x5a], // push $4; pop %rdx
  ...[0xeb, 0x07], // jmp write
  ...[0x89, 0x44, 0x24, 0x08], // say: mov %eax, 8(%rsp)
  ...[0x6a, 0x04, 0x5a], // push $4; pop %rdx
  ...[0x6a, 0x01, 0x58], // write: push $SYS_write; pop %rax
  ...[0x89, 0xc7], // mov %eax, %edi
  ...[0x48, 0x8d, 0x74, 0x24, 0x08], // lea 8(%rsp), %rsi
  ...[0x0f, 0x05, 0xc3], // syscall; ret
  ...Buffer.from('/dev/kvm\0'), // path
]
