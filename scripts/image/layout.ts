import { createHash } from 'node:crypto'
import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { padding } from '../../src/image/tar/entry.ts'
import { endOfArchive, formatHeader } from '../../src/image/tar/writer.ts'
import type { ImageFile } from './files.ts'

/** A layer's tar, not compressed: what a compressor makes of it depends on its version. */
export function layer(files: readonly ImageFile[]): Buffer {
  const sorted = [...files].sort((a, b) => (a.path < b.path ? -1 : 1))
  const blocks = sorted.flatMap(({ path, type, mode, target = '', data = Buffer.alloc(0) }) => {
    // The tar format's names are bytes, which formatHeader takes one character for each.
    const entry = { path: latin1(path), type, mode, linkPath: latin1(target), size: data.length }
    const header = formatHeader({
      ...entry,
      uid: 0,
      gid: 0,
      mtime: 0,
      device: { major: 0, minor: 0 },
      xattrs: new Map(),
    })
    return [header, data, Buffer.alloc(padding(data.length))]
  })
  return Buffer.concat([...blocks, endOfArchive])
}

/** Writes an OCI layout in place of what may be there, if that is one too. Returns the manifest's digest. */
export async function writeLayout(
  dir: string,
  layers: readonly Buffer[],
  { name, config }: { name: string; config: object },
): Promise<string> {
  if ((await exists(dir)) && !(await exists(join(dir, 'oci-layout')))) {
    throw new Error(`${dir} is there, and is no OCI layout that could be replaced`)
  }
  const blobs = new Map(layers.map((data) => [digestOf(data), data]))
  const add = (mediaType: string, document: object) => {
    const data = Buffer.from(JSON.stringify(document))
    blobs.set(digestOf(data), data)
    return { mediaType, digest: digestOf(data), size: data.length }
  }
  const image = add('application/vnd.oci.image.config.v1+json', {
    ...{ created: '1970-01-01T00:00:00Z', architecture: 'amd64', os: 'linux', config },
    rootfs: { type: 'layers', diff_ids: layers.map(digestOf) },
  })
  const manifest = add(manifestType, {
    ...{ schemaVersion: 2, mediaType: manifestType, config: image },
    layers: layers.map((data) => ({ mediaType: layerType, digest: digestOf(data), size: data.length })),
  })
  const staged = `${dir}.${process.pid}.new`
  await mkdir(join(staged, 'blobs/sha256'), { recursive: true })
  for (const [digest, data] of blobs) await writeFile(join(staged, 'blobs', digest.replace(':', '/')), data)
  await writeFile(join(staged, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  const entry = { ...manifest, annotations: { 'org.opencontainers.image.ref.name': name } }
  await writeFile(join(staged, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }))
  await rm(dir, { recursive: true, force: true })
  await rename(staged, dir)
  return manifest.digest
}

const manifestType = 'application/vnd.oci.image.manifest.v1+json'
const layerType = 'application/vnd.oci.image.layer.v1.tar'

function digestOf(data: Buffer): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`
}

function latin1(text: string): string {
  return Buffer.from(text).toString('latin1')
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
