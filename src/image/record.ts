import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { type Arch, arches } from '../host/arch.ts'
import { readJson, writeFileAtomic } from '../store/write.ts'
import { type ImageConfig, imageConfigSchema } from './config.ts'
import { builder } from './layer/squashfs.ts'
import { contentPaths, referencePath, referencesDir } from './paths.ts'

const contentSchema = z.object({
  schema: z.literal(1),
  revision: z.int(),
  /** Bytes of the squashfs. */
  size: z.int(),
  /** Bytes of its files. */
  unpackedBytes: z.int(),
  /** The texts of /etc/passwd and /etc/group, empty where the image has none: see `resolveUser`. */
  passwd: z.string(),
  group: z.string(),
})

export type Content = z.infer<typeof contentSchema>

const referenceSchema = z.object({
  schema: z.literal(1),
  reference: z.string(),
  arch: z.enum(arches),
  /** Names the directory with the squashfs. */
  key: z.string().regex(/^[0-9a-f]{64}$/),
  manifestDigest: z.string(),
  config: imageConfigSchema,
  created: z.string().optional(),
  pulledAt: z.string(),
  /** Of a local archive: what tells whether it has changed. */
  stamp: z.string().optional(),
})

export type ReferenceRecord = z.infer<typeof referenceSchema>

/** An image that is ready to run. */
export interface Image {
  /** In its full spelling. */
  reference: string
  arch: Arch
  /** Key of the squashfs: a digest of all that went into it. Images with the same layers share it. */
  digest: string
  /** Path of the squashfs, the image's whole root file system. It is read-only and may be shared by machines. */
  squashfs: string
  /** Bytes of the squashfs. */
  size: number
  config: ImageConfig
  /** Digest of the manifest that it was pulled by; of the config for docker-archive. */
  manifestDigest: string
  /** When it was built, in ISO 8601, if it says so. */
  created: string | undefined
  pulledAt: string
  stamp: string | undefined
  /** Texts of the image's /etc/passwd and /etc/group, for `resolveUser`. */
  passwd: string
  group: string
}

export async function writeReference(record: ReferenceRecord): Promise<void> {
  await writeFileAtomic(referencePath(record.reference, record.arch), `${JSON.stringify(record, undefined, 1)}\n`)
}

/** Undefined when it is not there, or was made by another version of nestvm, or is not whole. */
export async function findImage(reference: string, arch: Arch): Promise<Image | undefined> {
  const record = await readJson(referencePath(reference, arch), referenceSchema).catch(() => undefined)
  return record && toImage(record)
}

/** In the order of their names. */
export async function listImages(): Promise<Image[]> {
  const records = await listReferences()
  const images = await Promise.all(records.map(toImage))
  return images
    .filter((image) => image !== undefined)
    .sort((a, b) => (`${a.reference} ${a.arch}` < `${b.reference} ${b.arch}` ? -1 : 1))
}

export async function listReferences(): Promise<ReferenceRecord[]> {
  const names = (await readdir(referencesDir()).catch(() => [])).filter((name) => name.endsWith('.json'))
  const read = names.map((name) => readJson(join(referencesDir(), name), referenceSchema).catch(() => undefined))
  return (await Promise.all(read)).filter((record) => record !== undefined)
}

export async function removeReference({ reference, arch }: { reference: string; arch: Arch }): Promise<void> {
  await rm(referencePath(reference, arch), { force: true })
}

/** Undefined unless the squashfs is whole: after a loss of power it may be shorter than it was. */
export async function readContent(key: string): Promise<Content | undefined> {
  const { squashfs, record } = contentPaths(key)
  const content = await readJson(record, contentSchema).catch(() => undefined)
  const size = await stat(squashfs).then(
    (stats) => stats.size,
    () => undefined,
  )
  return content?.size === size && content?.revision === builder.revision ? content : undefined
}

async function toImage(record: ReferenceRecord): Promise<Image | undefined> {
  const content = await readContent(record.key)
  if (content === undefined) return undefined
  const { reference, arch, key, config, manifestDigest, created, pulledAt, stamp } = record
  return {
    ...{ reference, arch, digest: key, squashfs: contentPaths(key).squashfs, size: content.size },
    ...{ config, manifestDigest, created, pulledAt, stamp, passwd: content.passwd, group: content.group },
  }
}
