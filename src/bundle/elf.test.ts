import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { libraryClosure, neededLibraries } from './elf.ts'

let dir: string
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'elf-'))
  await writeFile(join(dir, 'program'), elf(['liba.so.1', 'libc.so.6']))
  await writeFile(join(dir, 'liba.so.1'), elf(['libb.so.2', 'libc.so.6']))
  await writeFile(join(dir, 'libb.so.2'), elf(['liba.so.1']))
  await writeFile(join(dir, 'libc.so.6'), elf([]))
  await writeFile(join(dir, 'broken'), elf(['libz.so.1']))
})
after(() => rm(dir, { recursive: true }))

test('the libraries of a program are those it names and those that they name', async () => {
  const closure = await libraryClosure([join(dir, 'program')], ['/nonexistent', dir])
  assert.deepEqual([...closure.keys()].sort(), ['liba.so.1', 'libb.so.2', 'libc.so.6'])
  assert.equal(closure.get('libc.so.6'), join(dir, 'libc.so.6'))
})

test('a library that is nowhere is an error that names it', async () => {
  await assert.rejects(libraryClosure([join(dir, 'broken')], [dir]), {
    code: 'LIBRARY_MISSING',
    message: /libz\.so\.1/,
  })
})

test('a script needs no library', () => {
  assert.deepEqual(neededLibraries(Buffer.from('#!/bin/sh\n')), [])
})

/** The least that a loader would look at: one loaded segment, one dynamic segment, one string table. */
function elf(needed: readonly string[]): Buffer {
  const address = 0x400000
  const [dynamicAt, stringsAt] = [0x100, 0x300]
  const image = Buffer.alloc(0x400)
  image.write('\x7fELF\x02\x01\x01', 'latin1')
  image.writeBigUInt64LE(64n, 32)
  image.writeUInt16LE(56, 54)
  image.writeUInt16LE(2, 56)
  segment(image, 64, { type: 1, offset: 0, address, size: image.length })
  segment(image, 64 + 56, { type: 2, offset: dynamicAt, address: address + dynamicAt, size: 0x200 })

  let at = dynamicAt
  const add = (tag: number, value: number) => {
    image.writeBigUInt64LE(BigInt(tag), at)
    image.writeBigUInt64LE(BigInt(value), at + 8)
    at += 16
  }
  let name = 1
  for (const library of needed) {
    image.write(library, stringsAt + name, 'latin1')
    add(1, name)
    name += library.length + 1
  }
  add(5, address + stringsAt)
  add(0, 0)
  return image
}

function segment(image: Buffer, at: number, header: { type: number; offset: number; address: number; size: number }) {
  image.writeUInt32LE(header.type, at)
  image.writeBigUInt64LE(BigInt(header.offset), at + 8)
  image.writeBigUInt64LE(BigInt(header.address), at + 16)
  image.writeBigUInt64LE(BigInt(header.size), at + 32)
}
