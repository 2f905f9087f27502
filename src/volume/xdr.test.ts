import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Reader, Writer } from './xdr.ts'

test('what was written is read again, whatever its length', () => {
  for (const length of [0, 1, 2, 3, 4, 5, 8191, 8192, 8193, 100_001]) {
    const writer = new Writer()
    writer.opaque(Buffer.alloc(length, 7))
    writer.bitmap([0, 33, 75])
    writer.i64(-2n)
    writer.u64(0xffff_ffff_ffff_ffffn)
    writer.name('\xff\xfe')
    const outer = new Writer()
    outer.u32(1)
    outer.append(writer)
    assert.equal(outer.length % 4, 0)
    const reader = new Reader(Buffer.concat(outer.finish()))
    assert.equal(reader.u32(), 1)
    assert.deepEqual(reader.opaque(200_000), Buffer.alloc(length, 7))
    assert.deepEqual([...reader.bitmap()], [0, 33, 75])
    assert.equal(reader.i64(), -2n)
    assert.equal(reader.u64(), 0xffff_ffff_ffff_ffffn)
    assert.equal(reader.name(10), '\xff\xfe')
    assert.equal(reader.rest().length, 0)
  }
})

test('a length that does not fit is refused before anything is made for it', () => {
  const words = (...values: number[]) => {
    const writer = new Writer()
    for (const value of values) writer.u32(value)
    return new Reader(Buffer.concat(writer.finish()))
  }
  assert.throws(() => words(0xffff_ffff).opaque(0xffff_ffff), { status: 10036 })
  assert.throws(() => words(8, 0).opaque(100), { status: 10036 })
  assert.throws(() => words(0x7fff_ffff).array(16, () => 0), { status: 10036 })
  assert.throws(() => words(9, 0, 0, 0, 0, 0, 0, 0, 0, 0).bitmap(), { status: 10036 })
  assert.throws(() => words().u64(), { status: 10036 })
})
