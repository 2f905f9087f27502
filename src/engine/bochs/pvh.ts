/** What is to be at an address of the guest's memory. */
export interface Loaded {
  address: number
  data: Buffer
}

export interface Kernel {
  /** By address. */
  segments: Loaded[]
  /** Where it is entered in 32-bit mode. */
  entry: number
  /** The first address behind it, with what it keeps for itself there. */
  end: number
}

/**
 * An unpacked x86-64 kernel's parts and its PVH entry: 64-bit ELF (elf(5)), with the entry in a note of type 18 by
 * `Xen` (XEN_ELFNOTE_PHYS32_ENTRY). Throws where it has none.
 */
export function readKernel(vmlinux: Buffer): Kernel {
  const headers = programHeaders(vmlinux)
  const loads = headers.filter(({ type }) => type === PT_LOAD).sort((a, b) => a.physical - b.physical)
  const notes = headers.filter(({ type }) => type === PT_NOTE)
  const entry = notes.flatMap(({ offset, size }) => pvhEntry(vmlinux.subarray(offset, offset + size)) ?? [])[0]
  if (entry === undefined) throw new Error('the kernel has no PVH entry')
  return {
    segments: loads.map(({ physical, offset, size }) => {
      return { address: physical, data: vmlinux.subarray(offset, offset + size) }
    }),
    entry,
    end: Math.max(...loads.map(({ physical, memory }) => physical + memory)),
  }
}

const PT_LOAD = 1
const PT_NOTE = 4
const XEN_ELFNOTE_PHYS32_ENTRY = 18

function programHeaders(elf: Buffer) {
  const start = Number(elf.readBigUInt64LE(32))
  const entrySize = elf.readUInt16LE(54)
  return Array.from({ length: elf.readUInt16LE(56) }, (_, index) => {
    const at = start + index * entrySize
    const field = (offset: number) => Number(elf.readBigUInt64LE(at + offset))
    return { type: elf.readUInt32LE(at), offset: field(8), physical: field(24), size: field(32), memory: field(40) }
  })
}

/** Notes: the sizes of name and content, the type, then both, each filled up to whole words. */
function pvhEntry(notes: Buffer): number | undefined {
  for (let at = 0; at + 12 <= notes.length; ) {
    const nameSize = notes.readUInt32LE(at)
    const size = notes.readUInt32LE(at + 4)
    const name = notes.toString('latin1', at + 12, at + 12 + nameSize)
    const content = at + 12 + words(nameSize)
    if (name === 'Xen\0' && notes.readUInt32LE(at + 8) === XEN_ELFNOTE_PHYS32_ENTRY) return notes.readUInt32LE(content)
    at = content + words(size)
  }
  return undefined
}

const words = (bytes: number) => Math.ceil(bytes / 4) * 4

export interface StartInfo {
  /** Where this will be. */
  address: number
  commandLine: string
  initrd: { address: number; size: number }
  memory: readonly MemoryRange[]
}

/** As the BIOS's E820 tells them: 1 is usable, 2 reserved, 3 has ACPI's tables. */
export interface MemoryRange {
  address: number
  size: number
  type: 1 | 2 | 3
}

/**
 * What a kernel that is entered by PVH is told: struct hvm_start_info, of version 1, with one module, the map of the
 * memory and the command line behind it (Xen's public/arch-x86/hvm/start_info.h). Where ACPI's tables are it looks itself.
 */
export function startInfo({ address, commandLine, initrd, memory }: StartInfo): Buffer {
  const modulesAt = address + 56
  const memoryAt = modulesAt + 32
  const commandLineAt = memoryAt + 24 * memory.length
  const info = Buffer.alloc(commandLineAt - address)
  info.writeUInt32LE(0x336ec578, 0)
  info.writeUInt32LE(1, 4)
  info.writeUInt32LE(1, 12)
  info.writeBigUInt64LE(BigInt(modulesAt), 16)
  info.writeBigUInt64LE(BigInt(commandLineAt), 24)
  info.writeBigUInt64LE(BigInt(memoryAt), 40)
  info.writeUInt32LE(memory.length, 48)
  info.writeBigUInt64LE(BigInt(initrd.address), modulesAt - address)
  info.writeBigUInt64LE(BigInt(initrd.size), modulesAt - address + 8)
  for (const [index, range] of memory.entries()) {
    const at = memoryAt - address + 24 * index
    info.writeBigUInt64LE(BigInt(range.address), at)
    info.writeBigUInt64LE(BigInt(range.size), at + 8)
    info.writeUInt32LE(range.type, at + 16)
  }
  return Buffer.concat([info, Buffer.from(`${commandLine}\0`)])
}
