import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadOrder, moduleAliases, moduleDependencies, moduleName, withoutSignature } from './modules.ts'

const dependencies: Record<string, string[]> = {
  virtio_net: ['net_failover', 'virtio_ring'],
  net_failover: ['failover'],
  failover: [],
  kvm_amd: ['kvm', 'ccp'],
  kvm: ['irqbypass'],
  irqbypass: [],
  ccp: [],
}
const order = (wanted: string[], builtIn: string[] = ['virtio_ring']) =>
  loadOrder(wanted, new Set(builtIn), async (name) => dependencies[name])

test('a module comes after those it needs, and once', async () => {
  assert.deepEqual(await order(['virtio_net', 'kvm-amd', 'kvm']), [
    ...['failover', 'net_failover', 'virtio_net'],
    ...['irqbypass', 'kvm', 'ccp', 'kvm_amd'],
  ])
})

test('what is built into the kernel is left out, also with what it would need', async () => {
  assert.deepEqual(await order(['kvm-amd'], ['kvm', 'ccp']), ['kvm_amd'])
})

test('a module that the kernel does not have is an error', async () => {
  await assert.rejects(order(['nothing']), /no module nothing/)
})

test('a name has no directory, no extension and no dashes', () => {
  assert.equal(moduleName('kernel/drivers/char/hw_random/virtio-rng.ko.xz'), 'virtio_rng')
  assert.equal(moduleName('kernel/fs/fuse/fuse.ko'), 'fuse')
})

test('dependencies are read from the section of NUL-separated settings', () => {
  const module = (settings: string) => Buffer.from(`\x7fELF...\0license=GPL\0${settings}\0retpoline=Y\0`)
  assert.deepEqual(moduleDependencies(module('depends=kvm,ccp')), ['kvm', 'ccp'])
  assert.deepEqual(moduleDependencies(module('depends=')), [])
  assert.deepEqual(moduleDependencies(module('alias=x')), [])
})

test('aliases are all lines of their kind', () => {
  const module = Buffer.from('\x7fELF\0license=GPL\0alias=fs-overlay\0depends=\0alias=overlayfs\0')
  assert.deepEqual(moduleAliases(module), ['fs-overlay', 'overlayfs'])
})

test('a signature at the end is taken off, and nothing else', () => {
  const code = Buffer.from('\x7fELF code of the module')
  const info = Buffer.alloc(12)
  info.writeUInt32BE(5, 8)
  const signed = Buffer.concat([code, Buffer.from('12345'), info, Buffer.from('~Module signature appended~\n')])
  assert.deepEqual(withoutSignature(signed), code)
  assert.deepEqual(withoutSignature(code), code)
  info.writeUInt32BE(5000, 8)
  const wrong = Buffer.concat([code, info, Buffer.from('~Module signature appended~\n')])
  assert.deepEqual(withoutSignature(wrong), wrong)
})
