import assert from 'node:assert/strict'
import { test } from 'node:test'
import { debugExitPort, probeImage, stages, successStatus } from './probe-image.ts'

test('it is as large as QEMU takes firmware, and nearly empty', () => {
  const image = probeImage()
  assert.equal(image.length, 64 << 10)
  assert.ok(image.filter((byte) => byte !== 0).length < 400)
})

test('the reset vector jumps into the image, to where the code begins', () => {
  const image = probeImage()
  assert.equal(image[0xfff0], 0xea)
  const [offset, segment] = [image.readUInt16LE(0xfff1), image.readUInt16LE(0xfff3)]
  const at = segment * 16 + offset - 0xf0000
  assert.equal(image[at], 0xfa) // cli
})

test('it says how far it came, and in the end reports by the exit device', () => {
  const image = probeImage()
  const says = (letter: string) => image.indexOf(Buffer.from([0xb0, letter.charCodeAt(0), 0xe6, 0xe9]))
  assert.ok(says(stages.started) >= 0)
  assert.ok(says(stages.longMode) > says(stages.started))
  assert.ok(image.indexOf(Buffer.from([0xe6, debugExitPort])) > says(stages.longMode))
})

test('no other end of QEMU has the status of success', () => {
  assert.ok(successStatus % 2 === 1 && successStatus > 2 && successStatus < 125)
})
