import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bootDisk } from './boot-disk.ts'

const mebibyte = 2 ** 20

test('the first sector has a table of what belongs where, and each part begins at its sector', () => {
  const parts = [segment(16 * mebibyte, 100_000, 'a'), segment(18 * mebibyte, 5, 'b')]
  const initrd = Buffer.alloc(70_000, 'i')
  const disk = Buffer.concat(
    bootDisk({ vmlinux: elf(parts, 0x1000040), initrd, commandLine: 'quiet', memoryMiB: 64 }).pieces,
  )
  assert.equal(disk.readUInt16LE(510), 0xaa55)
  const rows = tableOf(disk)
  const end = rows.pop()
  assert.deepEqual([end?.[0], end?.[2]], [0, 0x1000040])
  assert.deepEqual(
    rows.slice(1).map(([blocks, address]) => [blocks, address]),
    [
      [2, 16 * mebibyte],
      [1, 18 * mebibyte],
      [2, 19 * mebibyte],
    ],
  )
  const contents = rows.slice(1).map(([, , sector = 0]) => disk.toString('latin1', sector * 512, sector * 512 + 2))
  assert.deepEqual(contents, ['aa', 'bb', 'ii'])

  const [info] = rows
  assert.equal(end?.[1], info?.[1])
  const at = (info?.[2] ?? 0) * 512
  assert.equal(disk.readUInt32LE(at), 0x336ec578)
  const place = (field: number) => at + Number(disk.readBigUInt64LE(at + field)) - (info?.[1] ?? 0)
  assert.deepEqual(
    [disk.readBigUInt64LE(place(16)), disk.readBigUInt64LE(place(16) + 8)],
    [BigInt(19 * mebibyte), 70_000n],
  )
  assert.equal(disk.toString('latin1', place(24), place(24) + 6), 'quiet\0')
  const map = Array.from({ length: disk.readUInt32LE(at + 48) }, (_, index) => {
    const range = place(40) + 24 * index
    return { end: disk.readBigUInt64LE(range) + disk.readBigUInt64LE(range + 8), type: disk.readUInt32LE(range + 16) }
  })
  assert.ok(map.every(({ end }) => end <= BigInt(64 * mebibyte)))
  assert.equal(map.filter(({ type }) => type === 1).length, 2)
})

test('the disk has whole cylinders, since it is told to Bochs by their number', () => {
  const vmlinux = elf([segment(16 * mebibyte, 1000, 'a')], 1)
  const { pieces, cylinders } = bootDisk({ vmlinux, initrd: Buffer.from('i'), commandLine: '', memoryMiB: 64 })
  assert.equal(Buffer.concat(pieces).length, cylinders * 16 * 63 * 512)
})

test('what cannot be booted is refused', () => {
  const boot = { initrd: Buffer.alloc(1000), commandLine: '' }
  const vmlinux = elf([segment(16 * mebibyte, 1000, 'a')], 1)
  assert.throws(() => bootDisk({ ...boot, vmlinux, memoryMiB: 16 }), /memory is too small/)
  const other = elf([segment(16 * mebibyte, 1000, 'a')], 1, 'GNU\0')
  assert.throws(() => bootDisk({ ...boot, vmlinux: other, memoryMiB: 64 }), /no PVH entry/)
})

/** Rows of three numbers behind the code, up to the one that begins with 0, which is the last. */
function tableOf(disk: Buffer): number[][] {
  const rows: number[][] = []
  for (let at = tableAt; rows.at(-1)?.[0] !== 0; at += 12) {
    rows.push([disk.readUInt32LE(at), disk.readUInt32LE(at + 4), disk.readUInt32LE(at + 8)])
  }
  return rows
}

/** The last line of the listing is a counter at 0x7ca3. */
const tableAt = 0xa4

const segment = (address: number, size: number, letter: string) => ({ address, data: Buffer.alloc(size, letter) })

function elf(segments: { address: number; data: Buffer }[], entry: number, owner = 'Xen\0'): Buffer {
  const note = Buffer.alloc(20)
  note.writeUInt32LE(owner.length, 0)
  note.writeUInt32LE(4, 4)
  note.writeUInt32LE(18, 8)
  note.write(owner, 12)
  note.writeUInt32LE(entry, 16)
  const headers = [...segments.map((each) => ({ type: 1, ...each })), { type: 4, address: 0, data: note }]
  const header = Buffer.alloc(64 + 56 * headers.length)
  header.write('\x7fELF\x02\x01', 'latin1')
  header.writeBigUInt64LE(64n, 32)
  header.writeUInt16LE(56, 54)
  header.writeUInt16LE(headers.length, 56)
  let offset = header.length
  for (const [index, { type, address, data }] of headers.entries()) {
    const at = 64 + 56 * index
    header.writeUInt32LE(type, at)
    for (const [field, value] of [
      [8, offset],
      [24, address],
      [32, data.length],
      [40, data.length],
    ] as const) {
      header.writeBigUInt64LE(BigInt(value), at + field)
    }
    offset += data.length
  }
  return Buffer.concat([header, ...headers.map(({ data }) => data)])
}
