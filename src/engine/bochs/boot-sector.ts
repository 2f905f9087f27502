/** The BIOS runs a disk's first sector at this address, in real mode. */
const origin = 0x7c00

/** Sectors have 512 bytes; the code reads blocks of 128. */
export const sectorSize = 512
export const blockSize = 128 * sectorSize

/** A part of the disk, and where in memory it belongs; in the order of the addresses. */
export interface Part {
  address: number
  /** Of `blockSize`: the last one is read whole. */
  blocks: number
  sector: number
}

/**
 * A boot sector that reads parts of the first ATA disk into memory, by programmed I/O as ATA/ATAPI-4 has it (READ
 * SECTORS, LBA), and then jumps to `entry` in 32-bit mode, as x86's HVM direct boot ABI wants it: paging off, flat
 * segments, and EBX with `info`.
 */
export function bootSector(parts: readonly Part[], info: number, entry: number): Buffer {
  const rows = [...parts.map(({ blocks, address, sector }) => [blocks, address, sector]), [0, info, entry]]
  const table = Buffer.from(Uint32Array.from(rows.flat()).buffer)
  const bytes = Buffer.concat([code, table])
  if (bytes.length > signatureAt) throw new RangeError(`${parts.length} parts do not fit in a boot sector`)
  const sector = Buffer.alloc(sectorSize)
  bytes.copy(sector)
  sector.writeUInt16LE(0xaa55, signatureAt)
  return sector
}

const signatureAt = sectorSize - 2

/** The machine code and what it is, with the addresses that it has at `origin`; the table of parts follows it. */
const code = assembled(`
7c00: fa                    cli
7c01: 31 c0                 xor %ax, %ax
7c03: 8e d8                 mov %ax, %ds
7c05: e4 92                 in $0x92, %al           # A20, which lets addresses above 1 MiB be
7c07: 0c 02                 or $2, %al
7c09: e6 92                 out %al, $0x92
7c0b: 0f 01 16 9d 7c        lgdtw gdtr
7c10: 0f 20 c0              mov %cr0, %eax
7c13: 0c 01                 or $1, %al              # protection on
7c15: 0f 22 c0              mov %eax, %cr0
7c18: ea 1d 7c 08 00        ljmp $8, $0x7c1d
7c1d: 66 b8 10 00           mov $0x10, %ax          # from here on 32-bit
7c21: 8e d8                 mov %eax, %ds
7c23: 8e c0                 mov %eax, %es
7c25: 8e d0                 mov %eax, %ss
7c27: be a4 7c 00 00        mov $parts, %esi
7c2c: ad              part: lods (%esi), %eax
7c2d: 85 c0                 test %eax, %eax
7c2f: 74 4e                 je enter
7c31: 89 c5                 mov %eax, %ebp          # blocks
7c33: ad                    lods (%esi), %eax
7c34: 89 c7                 mov %eax, %edi          # address
7c36: ad                    lods (%esi), %eax
7c37: 89 c3                 mov %eax, %ebx          # sector
7c39: 66 ba f2 01    block: mov $0x1f2, %dx
7c3d: b0 80                 mov $128, %al           # how many
7c3f: ee                    out %al, (%dx)
7c40: 42                    inc %edx
7c41: 89 d8                 mov %ebx, %eax
7c43: ee                    out %al, (%dx)          # which, from its low byte up
7c44: 42                    inc %edx
7c45: c1 e8 08              shr $8, %eax
7c48: ee                    out %al, (%dx)
7c49: 42                    inc %edx
7c4a: c1 e8 08              shr $8, %eax
7c4d: ee                    out %al, (%dx)
7c4e: 42                    inc %edx
7c4f: b0 e0                 mov $0xe0, %al          # by LBA, of the first disk
7c51: ee                    out %al, (%dx)
7c52: 42                    inc %edx
7c53: b0 20                 mov $0x20, %al          # READ SECTORS
7c55: ee                    out %al, (%dx)
7c56: 83 eb 80              sub $-128, %ebx
7c59: ec            sector: in (%dx), %al
7c5a: 24 88                 and $0x88, %al          # until not busy, and with data
7c5c: 3c 08                 cmp $8, %al
7c5e: 75 f9                 jne sector
7c60: b2 f0                 mov $0xf0, %dl
7c62: b9 80 00 00 00        mov $128, %ecx
7c67: f3 6d                 rep insl (%dx), (%edi)
7c69: b2 f7                 mov $0xf7, %dl
7c6b: fe 05 a3 7c 00 00     incb counter            # negative once it is 128
7c71: 79 e6                 jns sector
7c73: c6 05 a3 7c 00 00 00  movb $0, counter
7c7a: 4d                    dec %ebp
7c7b: 75 bc                 jne block
7c7d: eb ad                 jmp part
7c7f: ad             enter: lods (%esi), %eax
7c80: 89 c3                 mov %eax, %ebx
7c82: ad                    lods (%esi), %eax
7c83: ff e0                 jmp *%eax
7c85: 00 00 00 00 00 00 00 00  gdt: nothing
7c8d: ff ff 00 00 00 9b cf 00  all memory, to run
7c95: ff ff 00 00 00 93 cf 00  all memory, to read and write
7c9d: 17 00 85 7c 00 00     gdtr
7ca3: 00                    counter
`)

/** Each line has its address, bytes in hexadecimal, and behind two spaces what they are. */
function assembled(listing: string): Buffer {
  const lines = listing.trim().split('\n')
  return lines.reduce((bytes, line) => {
    const [, address = '', hex = ''] = /^([0-9a-f]{4}): ((?:[0-9a-f]{2} )+) /.exec(line) ?? []
    if (Number.parseInt(address, 16) !== origin + bytes.length) throw new Error(`out of place: ${line}`)
    return Buffer.concat([bytes, Buffer.from(hex.replaceAll(' ', ''), 'hex')])
  }, Buffer.alloc(0))
}
