// What becomes of layers: read back from the squashfs. No registry is needed for these.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { before, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { type Example, exampleLayer } from '../../src/image/example-layer.ts'
import type { ImageProgressEvent } from '../../src/image/progress.ts'
import { removeImages } from '../../src/image/remove.ts'
import { run } from '../../src/machine/run.ts'
import { dataPaths } from '../../src/store/paths.ts'
import { type BuildOptions, buildImage, buildIndex, digestOf, dockerArchive, writeLayout } from './images.ts'
import { getPrograms, machine, type Programs } from './programs.ts'
import { listSquashfs, newHome, pull, readSquashfs } from './setting.ts'

const noRoot = process.getuid?.() === 0 ? false : 'needs root, to mount a small file system'
let programs: Programs
before(async () => {
  programs = await getPrograms()
})

/** Pulls an image of these layers from a layout in the home. */
async function pullLayers(dir: string, layers: readonly (readonly Example[] | Buffer)[], options: BuildOptions = {}) {
  await writeLayout(join(dir, 'layout'), { x: buildImage(layers, options) })
  return pull(programs, `oci:${join(dir, 'layout')}`)
}

async function refused(layers: readonly (readonly Example[] | Buffer)[], code: string, options: BuildOptions = {}) {
  await using home = await newHome()
  await assert.rejects(pullLayers(home.dir, layers, options), { code })
}

test('owners, modes, times, links, devices, pipes and attributes are those of the image', async () => {
  await using home = await newHome()
  // Not valid as UTF-8, and with the bytes that separate records.
  const capability = Buffer.from('01000002000480ff0a3d00000000000000000000', 'hex')
  const label = 'n'.repeat(200)
  const { squashfs } = await pullLayers(home.dir, [
    [
      { path: './', type: 'directory', mode: 0o751, uid: 5, gid: 6 },
      { path: 'file', data: 'hello', mode: 0o4755, uid: 70_000, gid: 3_000_000 },
      { path: 'second', type: 'link', linkPath: 'file' },
      { path: 'empty', mode: 0o600 },
      { path: 'also-empty', type: 'link', linkPath: 'empty' },
      { path: 'tmp', type: 'directory', mode: 0o1777 },
      { path: 'dev/null', type: 'character', device: { major: 1, minor: 3 }, mode: 0o666 },
      { path: 'dev/sda', type: 'block', device: { major: 8, minor: 0 } },
      { path: 'pipe', type: 'fifo' },
      { path: 'link', type: 'symlink', linkPath: '../../etc/passwd', mode: 0o777 },
      { path: `${label}/${label}/${label}`, data: 'long' },
      {
        path: 'ping',
        data: 'x',
        xattrs: new Map([
          ['security.capability', capability],
          ['user.note', Buffer.from('hi')],
        ]),
      },
      { path: 'old', data: 'x', mtime: 86_400 },
    ],
  ])
  const found = await listSquashfs(programs, squashfs)
  assert.deepEqual(found, {
    '/': 'drwxr-x--x 5/6',
    '/also-empty': '-rw------- 0/0 0',
    '/dev': 'drwxr-xr-x 0/0',
    '/dev/null': 'crw-rw-rw- 0/0 1,3',
    '/dev/sda': 'brw-r--r-- 0/0 8,0',
    '/empty': '-rw------- 0/0 0',
    '/file': '-rwsr-xr-x 70000/3000000 5',
    '/link': 'lrwxrwxrwx 0/0 16 -> ../../etc/passwd',
    [`/${label}`]: 'drwxr-xr-x 0/0',
    [`/${label}/${label}`]: 'drwxr-xr-x 0/0',
    [`/${label}/${label}/${label}`]: '-rw-r--r-- 0/0 4',
    '/old': '-rw-r--r-- 0/0 1',
    '/ping': '-rw-r--r-- 0/0 1',
    '/pipe': 'prw-r--r-- 0/0 0',
    '/second': '-rwsr-xr-x 70000/3000000 5',
    '/tmp': 'drwxrwxrwt 0/0',
  })
  const { stdout: listed } = await run(machine, [...programs.unsquashfs, '-lln', '-UTC', squashfs, 'old'])
  assert.match(listed, /1970-01-02 00:00/)
  const { stdout } = await run(machine, [...programs.unsquashfs, '-stat', squashfs])
  assert.match(stdout, /Compression lz4/)

  const tree = join(home.dir, 'tree')
  await run(
    machine,
    [...programs.unsquashfs, '-q', '-n', '-user-xattrs', '-d', tree, squashfs, 'file', 'second', 'ping'],
    { allowFailure: true },
  )
  const { stdout: inodes } = await run(machine, ['stat', '-c', '%i %h', join(tree, 'file'), join(tree, 'second')])
  const [one, two] = inodes.trim().split('\n')
  assert.equal(one, two)
  assert.match(one ?? '', / 2$/)
  const { stdout: pseudo } = await run(machine, [...programs.unsquashfs, '-pf', '-', squashfs], { maxOutput: 64 << 20 })
  const [, escaped = ''] = /security\.capability=0t(\S+)/.exec(pseudo) ?? []
  const value = escaped.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))
  assert.deepEqual(Buffer.from(value, 'latin1'), capability)
  assert.match(pseudo, /user\.note=hi/)
})

test('layers are laid over each other', async () => {
  await using home = await newHome()
  const image = await pullLayers(home.dir, [
    [
      { path: 'keep', data: '1' },
      { path: 'change', data: 'old' },
      { path: 'gone', data: '1' },
      { path: 'linked', data: 'from below' },
      { path: 'dir/a', data: '1' },
      { path: 'opaque/a', data: '1' },
      { path: 'usr/lib', type: 'directory' },
      { path: 'lib', type: 'symlink', linkPath: 'usr/lib' },
    ],
    [
      { path: 'change', data: 'new' },
      { path: '.wh.gone' },
      { path: 'second', type: 'link', linkPath: 'linked' },
      { path: '.wh.linked' },
      { path: 'dir', data: 'now a file' },
      { path: 'opaque/.wh..wh..opq' },
      { path: 'opaque/b', data: '2' },
      { path: 'lib/x', data: 'through the link' },
    ],
  ])
  const names = Object.keys(await listSquashfs(programs, image.squashfs))
  assert.deepEqual(names.sort(), [
    '/',
    '/change',
    '/dir',
    '/keep',
    '/lib',
    '/opaque',
    '/opaque/b',
    '/second',
    '/usr',
    '/usr/lib',
    '/usr/lib/x',
  ])
  assert.equal(await readSquashfs(programs, image.squashfs, 'change'), 'new')
  assert.equal(await readSquashfs(programs, image.squashfs, 'second'), 'from below')
})

test('sparse files, of a size that no download has, come out with their holes', async () => {
  await using home = await newHome()
  const file = join(home.dir, 'sparse')
  await run(machine, [
    'sh',
    '-c',
    'truncate -s 300M "$1" && printf end >> "$1" && tar -C "$2" -S -cf "$1.tar" sparse',
    'sh',
    file,
    home.dir,
  ])
  const image = await pullLayers(home.dir, [readFileSync(`${file}.tar`)])
  assert.match((await listSquashfs(programs, image.squashfs))['/sparse'] ?? '', / 314572803$/)
  assert.ok(image.size < 100_000, `${image.size}`)
})

test('the same image gives the same bytes again', async () => {
  await using home = await newHome()
  const layer = Array.from({ length: 300 }, (_, index) => ({
    path: `d${index % 7}/f${index}`,
    data: randomBytes(index * 31),
  }))
  const digests = new Set<string>()
  for (let round = 0; round < 2; round++) {
    const { squashfs, reference } = await pullLayers(home.dir, [layer, [{ path: 'top', data: 'x' }]])
    digests.add(digestOf(readFileSync(squashfs)))
    await removeImages([reference])
  }
  assert.equal(digests.size, 1)
})

test('hostile names and links are refused', async () => {
  await refused([[{ path: '../escape', data: 'x' }]], 'IMAGE_BAD_PATH')
  await refused([[{ path: 'a/../../escape', data: 'x' }]], 'IMAGE_BAD_PATH')
  await refused([[{ path: 'shadow', type: 'link', linkPath: '../../../etc/shadow' }]], 'IMAGE_BAD_LINK')
  await refused([[{ path: 'shadow', type: 'link', linkPath: '/etc/shadow' }]], 'IMAGE_BAD_LINK')
  await refused([[{ path: 'a', type: 'symlink', linkPath: 'a' }, { path: 'a/x' }]], 'IMAGE_BAD_PATH')
})

test('a symbolic link out of the root leads nowhere but into the image', async () => {
  await using home = await newHome()
  const target = `${'../'.repeat(20)}${home.dir.slice(1)}`
  const image = await pullLayers(home.dir, [
    [{ path: 'out', type: 'symlink', linkPath: target }],
    [{ path: 'out/escaped', data: 'x' }],
  ])
  assert.ok(`${home.dir}/escaped` in (await listSquashfs(programs, image.squashfs)))
  await assert.rejects(run(machine, ['stat', join(home.dir, 'escaped')]))
})

test('what does not match its digests is refused', async () => {
  await refused([[{ path: 'x' }]], 'IMAGE_BAD_DIGEST', { diffIds: () => [`sha256:${'1'.repeat(64)}`] })
  await refused([[{ path: 'x' }]], 'IMAGE_BAD_MANIFEST', { diffIds: () => [] })
  await refused([[{ path: 'x' }]], 'IMAGE_BAD_MANIFEST', { diffIds: () => ['sha256:../../x'] })
  await refused([[{ path: 'x' }]], 'IMAGE_BAD_DIGEST', {
    manifest: ({ layers }) => layers.map((layer) => layer.size++),
  })
})

test('truncated and broken layers are refused', async () => {
  const tar = exampleLayer([{ path: 'x', data: randomBytes(10_000) }])
  await refused([tar.subarray(0, 5000)], 'IMAGE_BAD_LAYER')
  await refused([tar], 'IMAGE_BAD_LAYER', { pack: (data) => gzipSync(data).subarray(0, 4000) })
  await refused([randomBytes(2048)], 'IMAGE_BAD_LAYER')
  await refused([tar], 'IMAGE_BAD_LAYER', { pack: () => Buffer.from('28b52ffd00', 'hex') })
})

test('unknown kinds are refused', async () => {
  const layer = [{ path: 'x' }]
  await refused([layer], 'IMAGE_UNSUPPORTED', { layerType: 'application/vnd.example.layer' })
  await refused([layer], 'IMAGE_UNSUPPORTED', {
    layerType: 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
  })
  await refused([layer], 'IMAGE_UNSUPPORTED', {
    manifest: ({ config }) => Object.assign(config, { mediaType: 'application/vnd.oci.empty.v1+json' }),
  })
  await refused([layer], 'IMAGE_UNSUPPORTED', {
    manifest: ({ layers }) => layers.map((entry) => Object.assign(entry, { urls: ['http://x.example'] })),
  })
  await refused([layer], 'IMAGE_UNSUPPORTED', { manifest: (manifest) => Object.assign(manifest, { schemaVersion: 1 }) })
  await refused([layer], 'IMAGE_UNSUPPORTED', {
    manifest: (manifest) => Object.assign(manifest, { mediaType: 'text/html' }),
  })
  await refused([layer], 'IMAGE_BAD_MANIFEST', { manifest: (manifest) => Object.assign(manifest, { layers: 'none' }) })
})

test('what is too large is refused before it takes room', async () => {
  const header = exampleLayer([{ path: 'x', data: '' }])
  header.write('77777777777', 124, 'latin1')
  const zeros = gzipSync(Buffer.alloc(20 << 20))
  process.env.NESTVM_IMAGE_MAX_GIB = '0.01'
  try {
    await refused([withChecksum(header)], 'IMAGE_TOO_LARGE')
    await refused([[{ path: 'zeros', data: Buffer.alloc(20 << 20) }]], 'IMAGE_TOO_LARGE', { pack: gzipSync })
    await refused([[{ path: 'x' }]], 'IMAGE_BAD_LAYER', { pack: () => zeros.subarray(0, 10) })
    process.env.NESTVM_IMAGE_MAX_FILES = '10'
    await refused([Array.from({ length: 11 }, (_, index) => ({ path: `f${index}` }))], 'IMAGE_TOO_LARGE')
    process.env.NESTVM_IMAGE_MAX_FILES = 'many'
    await refused([[{ path: 'x' }]], 'BAD_LIMIT')
  } finally {
    delete process.env.NESTVM_IMAGE_MAX_GIB
    delete process.env.NESTVM_IMAGE_MAX_FILES
  }
})

test('layouts and archives are images too', async () => {
  await using home = await newHome()
  const tars = [exampleLayer([{ path: 'a', data: '1' }]), exampleLayer([{ path: 'b', data: '2' }])]
  const image = buildImage(tars)
  const other = buildImage([[{ path: 'c' }]], { architecture: 'arm64' })
  const index = buildIndex({ 'linux/amd64': image, 'linux/arm64': other })
  const layout = join(home.dir, 'layout')
  await mkdir(layout)
  await writeLayout(layout, { one: index, two: image })
  const archive = join(home.dir, 'image.tar')
  await run(machine, ['tar', '-C', layout, '-cf', archive, '.'])
  const saved = join(home.dir, 'saved.tar')
  await writeFile(saved, dockerArchive('example.org/app:1', image, tars))
  const references = [
    `oci:${layout}:one`,
    `oci:${layout}:two`,
    `oci-archive:${archive}:one`,
    `docker-archive:${saved}`,
    `docker-archive:${saved}:example.org/app:1`,
  ]
  const digests = new Set<string>()
  for (const reference of references) digests.add((await pull(programs, reference)).digest)
  assert.equal(digests.size, 1)
  await assert.rejects(pull(programs, `oci:${layout}`), { code: 'IMAGE_NOT_FOUND', message: /one, two/ })
  await assert.rejects(pull(programs, `docker-archive:${saved}:other`), {
    code: 'IMAGE_NOT_FOUND',
    message: /example.org\/app:1/,
  })
  await assert.rejects(pull(programs, `oci-archive:${home.dir}/absent.tar`), { code: 'IMAGE_NOT_FOUND' })

  // A file that has changed is read again without being asked for.
  await writeLayout(layout, { one: buildImage([[{ path: 'changed' }]]) })
  assert.ok(!digests.has((await pull(programs, `oci:${layout}:one`)).digest))
})

test('a disk that becomes full is told, and nothing is left', { skip: noRoot }, async () => {
  await using home = await newHome()
  const disk = join(home.dir, 'disk')
  await mkdir(disk)
  await run(machine, ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'none', disk])
  try {
    process.env.XDG_DATA_HOME = disk
    const layer = [{ path: 'big', data: randomBytes(20_000_000) }]
    await assert.rejects(pullLayers(home.dir, [layer]), { code: 'NO_SPACE', hint: /prune/ })
    const { stdout } = await run(machine, ['find', disk, '-type', 'f'])
    assert.equal(stdout, '')
  } finally {
    await run(machine, ['umount', disk])
  }
})

test('a stopped pull leaves nothing but the cache', async () => {
  await using home = await newHome()
  const stop = new AbortController()
  await writeLayout(join(home.dir, 'layout'), { x: buildImage([[{ path: 'big', data: randomBytes(20_000_000) }]]) })
  const progress = ({ phase }: ImageProgressEvent) => phase === 'build' && stop.abort(new Error('stopped'))
  await assert.rejects(pull(programs, `oci:${home.dir}/layout`, { signal: stop.signal, progress }), /stopped/)
  const { stdout } = await run(machine, ['find', dataPaths().images, '-type', 'f'])
  assert.equal(stdout, '')
})

function withChecksum(tar: Buffer): Buffer {
  tar.fill(0x20, 148, 156)
  const sum = tar.subarray(0, 512).reduce((total, byte) => total + byte, 0)
  tar.write(`${sum.toString(8).padStart(6, '0')}\0`, 148, 'latin1')
  return tar
}
