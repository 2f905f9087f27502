import assert from 'node:assert/strict'
import { test } from 'node:test'
import { kernelPayload } from './kernel-image.ts'

test('the payload is found behind the setup code, without the size that the kernel build appends', () => {
  for (const [compression, magic] of [
    ['lz4', '02214c18'],
    ['zstd', '28b52ffd'],
    ['xz', 'fd377a58'],
  ]) {
    const packed = Buffer.from(`${magic}aabbcc`, 'hex')
    const image = bzImage({ payload: Buffer.concat([packed, uint32(1234)]) })
    assert.deepEqual(kernelPayload(image), { data: packed, compression, size: 1234 })
  }
})

test('gzip has the size as its own last field, which stays', () => {
  const payload = Buffer.concat([Buffer.from('1f8b0800', 'hex'), uint32(99)])
  assert.deepEqual(kernelPayload(bzImage({ payload })), { data: payload, compression: 'gzip', size: 99 })
})

test('0 setup sectors stand for 4', () => {
  const payload = Buffer.from('7f454c4600', 'hex')
  assert.deepEqual(kernelPayload(bzImage({ payload, setupSectors: 0 }))?.data, payload)
})

test('what is no bzImage, is too old, or is cut short has no payload', () => {
  const image = bzImage({ payload: Buffer.from('7f454c4600', 'hex') })
  assert.equal(kernelPayload(Buffer.alloc(0x1000)), undefined)
  assert.equal(kernelPayload(Buffer.alloc(10)), undefined)
  assert.equal(kernelPayload(image.subarray(0, -1)), undefined)
  image.writeUInt16LE(0x207, 0x206)
  assert.equal(kernelPayload(image), undefined)
})

test('an unknown compression has no payload', () => {
  assert.equal(kernelPayload(bzImage({ payload: Buffer.from('0011223344', 'hex') })), undefined)
})

test('an arm64 Image is taken as it stands', () => {
  const image = Buffer.alloc(100)
  image.write('ARMd', 56)
  assert.deepEqual(kernelPayload(image), { data: image, compression: 'none', size: 100 })
})

function bzImage({ payload, setupSectors = 2 }: { payload: Buffer; setupSectors?: number }): Buffer {
  const offset = 0x30
  const head = Buffer.alloc(((setupSectors || 4) + 1) * 512 + offset)
  head[0x1f1] = setupSectors
  head.write('HdrS', 0x202)
  head.writeUInt16LE(0x20f, 0x206)
  head.writeUInt32LE(offset, 0x248)
  head.writeUInt32LE(payload.length, 0x24c)
  return Buffer.concat([head, payload])
}

function uint32(value: number): Buffer {
  const buffer = Buffer.alloc(4)
  buffer.writeUInt32LE(value)
  return buffer
}
