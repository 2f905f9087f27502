import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { formatLayerRecord, layerRecord } from './guest/layer-record.ts'
import { layerBundle, mountSource } from './layer-bundle.ts'

let dir: string
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'layer-'))
})
after(() => rm(dir, { recursive: true }))

test('a layer is a bundle for the recipe and the architecture that it was made for', async () => {
  assert.equal(await layerBundle(dir, 'x86_64', 'r'), undefined)
  const record = { schema: 1, arch: 'x86_64', recipe: 'r', digest: 'd', kernelRelease: '6.1' } as const
  await writeFile(join(dir, layerRecord), formatLayerRecord(record))
  assert.equal(await layerBundle(dir, 'x86_64', 'other'), undefined)
  assert.equal(await layerBundle(dir, 'arm64', 'r'), undefined)
  const bundle = await layerBundle(dir, 'x86_64', 'r')
  assert.equal(bundle?.digest, 'd')
  assert.equal(bundle?.guest.vmlinux, join(dir, 'boot/vmlinux'))
  assert.deepEqual(bundle?.tools.argv('passt').at(-1), join(dir, 'usr/bin/passt'))
  assert.equal(bundle?.guest.kernelArguments, '')
})

test('a layer with a kernel of the user’s own tells how to start it', async () => {
  const kernel = { name: 'kernel-6.1.2-1-x86_64-0123456789abcdef', arguments: 'nokaslr' }
  const record = { schema: 1, arch: 'x86_64', recipe: 'r', digest: 'd', kernelRelease: '6.1', kernel } as const
  await writeFile(join(dir, layerRecord), formatLayerRecord(record))
  const bundle = await layerBundle(dir, 'x86_64', 'r')
  assert.deepEqual(bundle?.guest.kernel, kernel)
  assert.match(bundle?.guest.kernelArguments ?? '', / nokaslr$/)
})

test('a mount point is found by its whole name, and the last mount on it counts', () => {
  const mountinfo = `24 1 254:0 / /hypervisor ro,relatime - squashfs /dev/vda ro,errors=continue
25 1 254:1 / /hypervisor/usr ro,relatime shared:1 - squashfs /dev/vdb ro
26 1 254:2 / /twice rw - ext4 /dev/vdc rw
27 1 0:5 / /twice rw master:2 propagate_from:3 - tmpfs tmpfs rw
`
  assert.equal(mountSource(mountinfo, '/hypervisor'), '/dev/vda')
  assert.equal(mountSource(mountinfo, '/twice'), 'tmpfs')
  assert.equal(mountSource(mountinfo, '/hyper'), undefined)
})
