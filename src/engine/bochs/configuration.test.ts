import assert from 'node:assert/strict'
import { test } from 'node:test'
import { configuration } from './configuration.ts'

const machine = {
  ...{
    firmware: '/bundle/firmware',
    memoryMiB: 832,
    bootDisk: '/e/boot.img',
    cylinders: 150,
    mac: '52:54:00:00:00:01',
  },
  ...{ disks: [], kernelLog: '/e/kernel.log' },
}

test('disks are CD-ROMs, which a guest cannot write to, behind the one that it boots from', () => {
  const disks = ['/layer', '/my images/a, b'].map((path) => ({ path, readOnly: true, device: false }))
  const lines = configuration({ ...machine, disks }).split('\n')
  assert.ok(lines.includes('ata0-master: type=disk, mode=flat, path="/e/boot.img", cylinders=150, heads=16, spt=63'))
  assert.ok(lines.includes('ata0-slave: type=cdrom, path="/layer", status=inserted'))
  assert.ok(lines.includes('ata1-master: type=cdrom, path="/my images/a, b", status=inserted'))
})

test('what stops Bochs ends it, and its processor has VMX', () => {
  const text = configuration(machine)
  assert.match(text, /^panic: action=fatal$/m)
  assert.match(text, /^cpu: model=corei7_haswell_4770, .*reset_on_triple_fault=0/m)
  assert.match(text, /^memory: guest=832, host=832$/m)
})
