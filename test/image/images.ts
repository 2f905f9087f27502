import { createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { type Example, exampleLayer } from '../../src/image/example-layer.ts'

/** An image in memory, ready to be pushed or written. */
export interface BuiltImage {
  blobs: Map<string, Buffer>
  /** What others name comes first, what a tag is to name last. */
  manifests: { digest: string; mediaType: string; data: Buffer }[]
}

export interface BuildOptions {
  format?: 'oci' | 'docker'
  architecture?: string
  variant?: string
  /** Packs a layer's tar. */
  pack?: (tar: Buffer) => Buffer
  layerType?: string
  config?: Record<string, unknown>
  /** Changes what the manifest says. */
  manifest?: (manifest: Manifest) => void
  /** Changes what the config says of the layers. */
  diffIds?: (ids: string[]) => string[]
}

interface Manifest {
  config: Descriptor
  layers: Descriptor[]
}

interface Descriptor {
  mediaType: string
  digest: string
  size: number
  urls?: string[]
}

export const digestOf = (data: Buffer) => `sha256:${createHash('sha256').update(data).digest('hex')}`

const types = {
  oci: {
    manifest: 'application/vnd.oci.image.manifest.v1+json',
    index: 'application/vnd.oci.image.index.v1+json',
    config: 'application/vnd.oci.image.config.v1+json',
    layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
  },
  docker: {
    manifest: 'application/vnd.docker.distribution.manifest.v2+json',
    index: 'application/vnd.docker.distribution.manifest.list.v2+json',
    config: 'application/vnd.docker.container.image.v1+json',
    layer: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  },
}

export function buildImage(layers: readonly (readonly Example[] | Buffer)[], options: BuildOptions = {}): BuiltImage {
  const { format = 'oci', architecture = 'amd64', pack = gzipSync, diffIds = (ids: string[]) => ids } = options
  const type = types[format]
  const tars = layers.map((layer) => (Buffer.isBuffer(layer) ? layer : exampleLayer(layer)))
  const packed = tars.map((tar) => pack(tar))
  const config = Buffer.from(
    JSON.stringify({
      ...{
        architecture,
        variant: options.variant,
        os: 'linux',
        created: '2026-01-02T03:04:05Z',
        config: options.config,
      },
      rootfs: { type: 'layers', diff_ids: diffIds(tars.map(digestOf)) },
    }),
  )
  const manifest = {
    schemaVersion: 2,
    mediaType: type.manifest,
    config: { mediaType: type.config, digest: digestOf(config), size: config.length },
    layers: packed.map((data) => ({
      mediaType: options.layerType ?? type.layer,
      digest: digestOf(data),
      size: data.length,
    })),
  }
  options.manifest?.(manifest)
  const data = Buffer.from(JSON.stringify(manifest))
  return {
    blobs: new Map([config, ...packed].map((blob) => [digestOf(blob), blob])),
    manifests: [{ digest: digestOf(data), mediaType: type.manifest, data }],
  }
}

/** An index of images by platform (`linux/amd64`), as buildx makes it, an attestation included. */
export function buildIndex(images: Record<string, BuiltImage>, format: 'oci' | 'docker' = 'oci'): BuiltImage {
  const entries = Object.entries(images).map(([name, image]) => {
    const [os, architecture, variant] = name.split('/')
    const { digest = '', mediaType = '', data = Buffer.alloc(0) } = image.manifests.at(-1) ?? {}
    return { mediaType, digest, size: data.length, platform: { os, architecture, variant } }
  })
  const mediaType = types[format].index
  const data = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests: entries }))
  return {
    blobs: new Map(Object.values(images).flatMap(({ blobs }) => [...blobs])),
    manifests: [
      ...Object.values(images).flatMap(({ manifests }) => manifests),
      { digest: digestOf(data), mediaType, data },
    ],
  }
}

/** As an OCI layout in a directory; each image gets a name. */
export async function writeLayout(dir: string, images: Record<string, BuiltImage>): Promise<void> {
  await mkdir(join(dir, 'blobs/sha256'), { recursive: true })
  const manifests: unknown[] = []
  for (const [name, { blobs, manifests: documents }] of Object.entries(images)) {
    const all = [...blobs, ...documents.map(({ digest, data }) => [digest, data] as const)]
    for (const [digest, data] of all) await writeFile(join(dir, 'blobs', digest.replace(':', '/')), data)
    const { digest = '', mediaType = '', data = Buffer.alloc(0) } = documents.at(-1) ?? {}
    const annotations = { 'org.opencontainers.image.ref.name': name }
    manifests.push({ mediaType, digest, size: data.length, annotations })
  }
  await writeFile(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  await writeFile(join(dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }))
}

/** As `docker save` writes it: plain layers, one of them by a link. */
export function dockerArchive(tag: string, image: BuiltImage, tars: readonly Buffer[]): Buffer {
  const [config = ''] = [...image.blobs.keys()]
  const layers = tars.map((_, index) => `${index}/layer.tar`)
  return exampleLayer([
    { path: `${config.slice(7)}.json`, data: image.blobs.get(config) },
    ...tars.map((data, index) => ({ path: `store/${index}.tar`, data })),
    ...layers.map((path, index) => ({ path, type: 'symlink' as const, linkPath: `../store/${index}.tar` })),
    {
      path: 'manifest.json',
      data: JSON.stringify([{ Config: `${config.slice(7)}.json`, RepoTags: [tag], Layers: layers }]),
    },
  ])
}
