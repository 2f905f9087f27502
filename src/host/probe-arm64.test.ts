import assert from 'node:assert/strict'
import { test } from 'node:test'
import { arm64Image } from './probe-arm64.ts'

const words = Array.from({ length: arm64Image().length / 4 }, (_, index) => arm64Image().readUInt32LE(4 * index))

test('every branch leads to an instruction of the image', () => {
  const targets = words.flatMap((word, at) => {
    if (word >>> 24 === 0x54) return [at + (((word >>> 5) << 13) >> 13)]
    return word >>> 26 === 5 ? [at + ((word << 6) >> 6)] : []
  })
  assert.equal(targets.length, 6)
  for (const target of targets) assert.ok(target >= 0 && target < words.length, String(target))
})

test('it powers the machine off by the conduit of its exception level', () => {
  assert.ok(words.includes(0xd4000002) && words.includes(0xd4000003))
  // What follows a call that returns is a loop.
  assert.equal(words.at(-1), 0x14000000)
})
