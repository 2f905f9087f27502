import * as z from 'zod'
import { check, digestSchema, parseJson } from './manifest.ts'

const strings = z.array(z.string()).nullish()
const set = z.record(z.string(), z.unknown()).nullish()

/** The image's config document, as far as nestvm uses it. Go writes empty lists as null. */
const documentSchema = z.object({
  architecture: z.string(),
  os: z.string(),
  variant: z.string().optional(),
  created: z.string().nullish(),
  rootfs: z.object({ type: z.literal('layers'), diff_ids: z.array(digestSchema).nullable() }),
  config: z
    .object({
      User: z.string().nullish(),
      Env: strings,
      Entrypoint: strings,
      Cmd: strings,
      WorkingDir: z.string().nullish(),
      ExposedPorts: set,
      Volumes: set,
      Labels: z.record(z.string(), z.string()).nullish(),
      StopSignal: z.string().nullish(),
      Healthcheck: z
        .object({
          Test: strings,
          Interval: z.int().nonnegative().optional(),
          Timeout: z.int().nonnegative().optional(),
          StartPeriod: z.int().nonnegative().optional(),
          Retries: z.int().nonnegative().optional(),
        })
        .nullish(),
    })
    .nullish(),
})

/** What an image says about the container that is to run from it. */
export const imageConfigSchema = z.object({
  entrypoint: z.array(z.string()),
  cmd: z.array(z.string()),
  /** `KEY=VALUE` */
  env: z.array(z.string()),
  /** `/` unless said. */
  workdir: z.string(),
  /** Empty for root; see `resolveUser`. */
  user: z.string(),
  /** `80/tcp` */
  exposedPorts: z.array(z.string()),
  volumes: z.array(z.string()),
  labels: z.record(z.string(), z.string()),
  stopSignal: z.string().optional(),
  /** `test` begins with CMD, CMD-SHELL or NONE. */
  healthcheck: z
    .object({
      test: z.array(z.string()),
      intervalMs: z.number().optional(),
      timeoutMs: z.number().optional(),
      startPeriodMs: z.number().optional(),
      retries: z.number().optional(),
    })
    .optional(),
})

export type ImageConfig = z.infer<typeof imageConfigSchema>

export interface ParsedConfig {
  platform: { os: string; architecture: string; variant?: string }
  created: string | undefined
  diffIds: string[]
  config: ImageConfig
}

/** Throws `IMAGE_BAD_MANIFEST`. */
export function parseConfig(data: Buffer): ParsedConfig {
  const { architecture, os, variant, created, rootfs, config } = check(documentSchema, parseJson(data), 'config')
  return {
    platform: { os, architecture, variant },
    created: created ?? undefined,
    diffIds: rootfs.diff_ids ?? [],
    config: {
      entrypoint: config?.Entrypoint ?? [],
      cmd: config?.Cmd ?? [],
      env: config?.Env ?? [],
      workdir: config?.WorkingDir || '/',
      user: config?.User ?? '',
      exposedPorts: Object.keys(config?.ExposedPorts ?? {}),
      volumes: Object.keys(config?.Volumes ?? {}),
      labels: config?.Labels ?? {},
      stopSignal: config?.StopSignal || undefined,
      healthcheck: healthcheck(config?.Healthcheck),
    },
  }
}

type Healthcheck = NonNullable<z.infer<typeof documentSchema>['config']>['Healthcheck']

/** Go counts time in nanoseconds; 0 is "not said". */
function healthcheck(check: Healthcheck): ImageConfig['healthcheck'] {
  if (!check?.Test?.length) return undefined
  const milliseconds = (nanoseconds: number | undefined) => (nanoseconds ? nanoseconds / 1e6 : undefined)
  return {
    test: check.Test,
    intervalMs: milliseconds(check.Interval),
    timeoutMs: milliseconds(check.Timeout),
    startPeriodMs: milliseconds(check.StartPeriod),
    retries: check.Retries || undefined,
  }
}
