BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0008');
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	actor VARCHAR(271) NOT NULL, 
	address VARCHAR(64) NOT NULL, 
	action VARCHAR(32) NOT NULL, 
	job_id VARCHAR(255), 
	detail TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,'2026-11-28 07:47:02.955000','own machine','127.0.0.1','register','zeus-job','');
INSERT INTO "audit" VALUES(2,'2026-11-28 07:47:02.985000','own machine','127.0.0.1','ask','zeus-job','trial 1, batch size 16');
INSERT INTO "audit" VALUES(3,'2026-11-28 07:47:03.015000','own machine','127.0.0.1','ask','zeus-job','trial 2, batch size 8');
INSERT INTO "audit" VALUES(4,'2026-11-28 07:47:03.036000','own machine','127.0.0.1','ask','zeus-job','trial 3, batch size 32');
INSERT INTO "audit" VALUES(5,'2026-11-28 07:47:03.055000','own machine','127.0.0.1','ask','zeus-job','trial 4, batch size 8');
INSERT INTO "audit" VALUES(6,'2026-11-28 07:47:03.069000','own machine','127.0.0.1','ask','zeus-job','trial 5, batch size 16');
INSERT INTO "audit" VALUES(7,'2026-11-28 07:47:03.087000','own machine','127.0.0.1','ask','zeus-job','trial 6, batch size 32');
INSERT INTO "audit" VALUES(8,'2026-11-28 07:47:03.091000','own machine','127.0.0.1','end trial','zeus-job','trial 6: ended by its caller without a result');
INSERT INTO "audit" VALUES(9,'2026-11-28 07:47:03.098000','own machine','127.0.0.1','ask','zeus-job','trial 7, batch size 32');
INSERT INTO "audit" VALUES(10,'2026-11-28 07:47:03.116000','own machine','127.0.0.1','ask','zeus-job','trial 8, batch size 16');
INSERT INTO "audit" VALUES(11,'2026-11-28 07:47:03.133000','own machine','127.0.0.1','ask','zeus-job','trial 9, batch size 16');
INSERT INTO "audit" VALUES(12,'2026-11-28 07:47:03.150000','own machine','127.0.0.1','ask','zeus-job','trial 10, batch size 16');
INSERT INTO "audit" VALUES(13,'2026-11-28 07:47:03.168000','own machine','127.0.0.1','ask','zeus-job','trial 11, batch size 16');
INSERT INTO "audit" VALUES(14,'2026-11-28 07:47:03.185000','own machine','127.0.0.1','ask','zeus-job','trial 12, batch size 16');
INSERT INTO "audit" VALUES(15,'2026-11-28 07:47:03.203000','own machine','127.0.0.1','ask','zeus-job','trial 13, batch size 16');
INSERT INTO "audit" VALUES(16,'2026-11-28 07:47:03.262000','own machine','127.0.0.1','ask','zeus-job','trial 14, batch size 16');
INSERT INTO "audit" VALUES(17,'2026-11-28 07:47:03.313000','own machine','127.0.0.1','ask','zeus-job','trial 15, batch size 16');
INSERT INTO "audit" VALUES(18,'2026-11-28 07:47:03.324000','own machine','127.0.0.1','register','gp-ucb-job','');
INSERT INTO "audit" VALUES(19,'2026-11-28 07:47:03.336000','own machine','127.0.0.1','ask','gp-ucb-job','trial 1, batch size 16');
INSERT INTO "audit" VALUES(20,'2026-11-28 07:47:03.360000','own machine','127.0.0.1','ask','gp-ucb-job','trial 2, batch size 32');
INSERT INTO "audit" VALUES(21,'2026-11-28 07:47:03.380000','own machine','127.0.0.1','ask','gp-ucb-job','trial 3, batch size 8');
INSERT INTO "audit" VALUES(22,'2026-11-28 07:47:03.399000','own machine','127.0.0.1','ask','gp-ucb-job','trial 4, batch size 8');
INSERT INTO "audit" VALUES(23,'2026-11-28 07:47:03.413000','own machine','127.0.0.1','ask','gp-ucb-job','trial 5, batch size 16');
INSERT INTO "audit" VALUES(24,'2026-11-28 07:47:03.432000','own machine','127.0.0.1','ask','gp-ucb-job','trial 6, batch size 16');
INSERT INTO "audit" VALUES(25,'2026-11-28 07:47:03.436000','own machine','127.0.0.1','end trial','gp-ucb-job','trial 6: ended by its caller without a result');
INSERT INTO "audit" VALUES(26,'2026-11-28 07:47:03.444000','own machine','127.0.0.1','ask','gp-ucb-job','trial 7, batch size 16');
INSERT INTO "audit" VALUES(27,'2026-11-28 07:47:03.462000','own machine','127.0.0.1','ask','gp-ucb-job','trial 8, batch size 16');
INSERT INTO "audit" VALUES(28,'2026-11-28 07:47:03.479000','own machine','127.0.0.1','ask','gp-ucb-job','trial 9, batch size 16');
INSERT INTO "audit" VALUES(29,'2026-11-28 07:47:03.493000','own machine','127.0.0.1','ask','gp-ucb-job','trial 10, batch size 16');
INSERT INTO "audit" VALUES(30,'2026-11-28 07:47:03.506000','own machine','127.0.0.1','ask','gp-ucb-job','trial 11, batch size 16');
INSERT INTO "audit" VALUES(31,'2026-11-28 07:47:03.510000','command line','','make token',NULL,'trainers: run, jobs beginning with zeus, never expires');
INSERT INTO "audit" VALUES(32,'2026-11-28 07:47:03.615000','command line','','make user',NULL,'ada, admin');
CREATE TABLE beliefs (
	job INTEGER NOT NULL, 
	exploration INTEGER NOT NULL, 
	told TEXT NOT NULL, 
	PRIMARY KEY (job, exploration), 
	FOREIGN KEY(job) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "beliefs" VALUES(1,0,'{"version": 2, "last": {"number": 14, "batch_size": 16, "type": "MAB", "status": "Succeeded", "converged": true, "energy_j": 14.432767067905054, "time_s": 1.0, "epochs": 1, "started": 38, "ended": 40, "bound_factor": 1.0, "out_of_memory": false}, "rewards": {"16": [9, -14.407775543735555, 0.7306899008690622, []], "8": [2, -16.423716868468617, 25.579602073751833, []], "32": [2, -18.62960485303428, 0.036003052186043515, []]}, "explored": [[1, 16, "Pruning", "Succeeded", true, 14.134364244112401, 1.0, 1, 1, 3, 1.0, false], [2, 8, "Pruning", "Succeeded", true, 12.847433736937234, 1.0, 1, 4, 6, 1.0, false], [3, 32, "Pruning", "Succeeded", true, 18.763774618976615, 1.0, 1, 7, 9, 1.0, false], [4, 8, "Pruning", "Succeeded", false, 20.0, 1.0, 1, 10, 11, 1.0, false], [5, 16, "Pruning", "Succeeded", true, 14.255069025739422, 1.0, 1, 12, 14, 1.0, false], [7, 32, "Pruning", "Succeeded", true, 18.49543508709194, 1.0, 1, 17, 19, 1.0, false]], "cheapest": {"number": 2, "batch_size": 8, "type": "Pruning", "status": "Succeeded", "converged": true, "energy_j": 12.847433736937234, "time_s": 1.0, "epochs": 1, "started": 4, "ended": 6, "bound_factor": 1.0, "out_of_memory": false}}');
INSERT INTO "beliefs" VALUES(2,0,'{"version": 2, "last": {"number": 10, "batch_size": 16, "type": "MAB", "status": "Succeeded", "converged": true, "energy_j": 14.030589983033554, "time_s": 1.0, "epochs": 1, "started": 26, "ended": 28, "bound_factor": 1.0, "out_of_memory": false}, "counted": {"converged": [1.0, 6.0, 1.0], "failed": [1.0, 0.0, 0.0], "failed_since_success": [0.0, 0.0, 0.0], "failed_factor": 1.0, "changed": null, "too_large": null}, "epochs": {"runs": [1.0, 6.0, 1.0], "mean": [0.0, 0.0, 0.0], "site_precision": [36.94926300332545, 0.0, 0.0], "site_shift": [19.72726170642964, 0.0, 0.0], "squares": 0.0, "freedom": 5.0, "rising": 0.0, "falling": 0.0}, "epochs_prior": null, "epoch_cost": {"runs": [2.0, 6.0, 1.0], "mean": [2.758541160654296, 2.680624050423699, 2.890488754015802], "energy_j": [32.4453871940548, 87.58987047226813, 18.00210605335111], "time_s": [2.0, 6.0, 1.0]}}');
CREATE TABLE jobs (
	id INTEGER NOT NULL, 
	job_id VARCHAR(255) NOT NULL, 
	spec TEXT NOT NULL, 
	seed BIGINT NOT NULL, 
	rng_position TEXT NOT NULL, 
	revision BIGINT NOT NULL, 
	exploration INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, warm_start TEXT, probes TEXT, paused BOOLEAN DEFAULT '0' NOT NULL, policy VARCHAR(16) DEFAULT '' NOT NULL, gpu_model VARCHAR(255) DEFAULT '' NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (job_id)
);
INSERT INTO "jobs" VALUES(1,'zeus-job','{"job_id":"zeus-job","job_id_prefix":"zeus","batch_sizes":[8,16,32],"default_batch_size":16,"eta_knob":1.0,"beta_knob":2.0,"target_metric":1.0,"higher_is_better_metric":true,"max_epochs":10,"num_pruning_rounds":2,"window_size":0,"mab_prior_mean":0.0,"mab_prior_precision":0.0,"mab_num_explorations":2,"mab_seed":7,"policy":"zeus","warm_start_from":null,"max_power":100.0,"number_of_gpus":1,"gpu_model":"A40"}',7,'{"bit_generator": "PCG64", "state": {"state": 24577368018281870019634082382682937184, "inc": 261136684632268670825940853076396136793}, "has_uint32": 0, "uinteger": 688105445}',41,0,'2026-11-28 07:47:02.953000',NULL,NULL,0,'zeus','A40');
INSERT INTO "jobs" VALUES(2,'gp-ucb-job','{"job_id":"gp-ucb-job","job_id_prefix":"gp-ucb","batch_sizes":[8,16,32],"default_batch_size":16,"eta_knob":1.0,"beta_knob":2.0,"target_metric":1.0,"higher_is_better_metric":true,"max_epochs":10,"num_pruning_rounds":2,"window_size":0,"mab_prior_mean":0.0,"mab_prior_precision":0.0,"mab_num_explorations":2,"mab_seed":7,"policy":"gp-ucb","warm_start_from":null,"max_power":100.0,"number_of_gpus":1,"gpu_model":"A40"}',7,'{"bit_generator": "PCG64", "state": {"state": 208745520555909116978795849195383758904, "inc": 261136684632268670825940853076396136793}, "has_uint32": 0, "uinteger": 0}',29,0,'2026-11-28 07:47:03.323000',NULL,NULL,0,'gp-ucb','A40');
CREATE TABLE reports (
	trial INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	metric DOUBLE, 
	energy_j DOUBLE NOT NULL, 
	time_s DOUBLE NOT NULL, 
	code VARCHAR(16) NOT NULL, 
	message TEXT NOT NULL, 
	revision BIGINT NOT NULL, 
	expired_revision BIGINT, 
	received_at DATETIME NOT NULL, 
	PRIMARY KEY (trial, number), 
	FOREIGN KEY(trial) REFERENCES trials (id) ON DELETE CASCADE
);
INSERT INTO "reports" VALUES(1,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',2,NULL,'2026-11-28 07:47:02.990000');
INSERT INTO "reports" VALUES(1,2,1,1.0,1.41343642441124011104e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.1344 J',3,NULL,'2026-11-28 07:47:03.003000');
INSERT INTO "reports" VALUES(2,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',5,NULL,'2026-11-28 07:47:03.019000');
INSERT INTO "reports" VALUES(2,2,1,1.0,1.28474337369372335613e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 12.8474 J',6,NULL,'2026-11-28 07:47:03.026000');
INSERT INTO "reports" VALUES(3,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',8,NULL,'2026-11-28 07:47:03.040000');
INSERT INTO "reports" VALUES(3,2,1,1.0,1.87637746189766154714e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 18.7638 J',9,NULL,'2026-11-28 07:47:03.046000');
INSERT INTO "reports" VALUES(4,1,1,NULL,20.0,1.0,'diverged','the metric is not a finite number: the run has diverged; batch size 8 is not given again in this job, unless the job is reset',11,NULL,'2026-11-28 07:47:03.059000');
INSERT INTO "reports" VALUES(5,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',13,NULL,'2026-11-28 07:47:03.073000');
INSERT INTO "reports" VALUES(5,2,1,1.0,1.42550690257394219173e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.2551 J',14,NULL,'2026-11-28 07:47:03.078000');
INSERT INTO "reports" VALUES(7,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',18,NULL,'2026-11-28 07:47:03.101000');
INSERT INTO "reports" VALUES(7,2,1,1.0,1.84954350870919412841e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 18.4954 J',19,NULL,'2026-11-28 07:47:03.106000');
INSERT INTO "reports" VALUES(8,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',21,NULL,'2026-11-28 07:47:03.119000');
INSERT INTO "reports" VALUES(8,2,1,1.0,1.44494910647887380155e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.4495 J',22,NULL,'2026-11-28 07:47:03.124000');
INSERT INTO "reports" VALUES(9,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',24,NULL,'2026-11-28 07:47:03.136000');
INSERT INTO "reports" VALUES(9,2,1,1.0,1.46515929727227636192e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.6516 J',25,NULL,'2026-11-28 07:47:03.142000');
INSERT INTO "reports" VALUES(10,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',27,NULL,'2026-11-28 07:47:03.154000');
INSERT INTO "reports" VALUES(10,2,1,1.0,1.47887233511355127286e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.7887 J',28,NULL,'2026-11-28 07:47:03.159000');
INSERT INTO "reports" VALUES(11,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',30,NULL,'2026-11-28 07:47:03.171000');
INSERT INTO "reports" VALUES(11,2,1,1.0,1.40938595867742346712e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.0939 J',31,NULL,'2026-11-28 07:47:03.176000');
INSERT INTO "reports" VALUES(12,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',33,NULL,'2026-11-28 07:47:03.188000');
INSERT INTO "reports" VALUES(12,2,1,1.0,1.40283474765220059765e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.0283 J',34,NULL,'2026-11-28 07:47:03.193000');
INSERT INTO "reports" VALUES(13,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',36,NULL,'2026-11-28 07:47:03.207000');
INSERT INTO "reports" VALUES(13,2,1,1.0,1.48357651039198703557e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.8358 J',37,NULL,'2026-11-28 07:47:03.237000');
INSERT INTO "reports" VALUES(14,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',39,NULL,'2026-11-28 07:47:03.268000');
INSERT INTO "reports" VALUES(14,2,1,1.0,1.44327670679050541475e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.4328 J',40,NULL,'2026-11-28 07:47:03.276000');
INSERT INTO "reports" VALUES(16,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',2,NULL,'2026-11-28 07:47:03.341000');
INSERT INTO "reports" VALUES(16,2,1,1.0,1.47622800824579414324e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.7623 J',3,NULL,'2026-11-28 07:47:03.348000');
INSERT INTO "reports" VALUES(17,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',5,NULL,'2026-11-28 07:47:03.364000');
INSERT INTO "reports" VALUES(17,2,1,1.0,1.80021060533511096934e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 18.0021 J',6,NULL,'2026-11-28 07:47:03.370000');
INSERT INTO "reports" VALUES(18,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',8,NULL,'2026-11-28 07:47:03.384000');
INSERT INTO "reports" VALUES(18,2,1,1.0,12.4453871940548,1.0,'converged','metric 1 reached the target 1 at a cost of 12.4454 J',9,NULL,'2026-11-28 07:47:03.390000');
INSERT INTO "reports" VALUES(19,1,1,NULL,20.0,1.0,'diverged','the metric is not a finite number: the run has diverged; batch size 8 has converged before in this job, so it may be given again',11,NULL,'2026-11-28 07:47:03.403000');
INSERT INTO "reports" VALUES(20,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',13,NULL,'2026-11-28 07:47:03.416000');
INSERT INTO "reports" VALUES(20,2,1,1.0,1.47215400323407834552e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.7215 J',14,NULL,'2026-11-28 07:47:03.422000');
INSERT INTO "reports" VALUES(22,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',18,NULL,'2026-11-28 07:47:03.447000');
INSERT INTO "reports" VALUES(22,2,1,1.0,1.4228762221270452315e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.2288 J',19,NULL,'2026-11-28 07:47:03.453000');
INSERT INTO "reports" VALUES(23,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',21,NULL,'2026-11-28 07:47:03.466000');
INSERT INTO "reports" VALUES(23,2,1,1.0,1.49452706955539227351e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.9453 J',22,NULL,'2026-11-28 07:47:03.472000');
INSERT INTO "reports" VALUES(24,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',24,NULL,'2026-11-28 07:47:03.482000');
INSERT INTO "reports" VALUES(24,2,1,1.0,1.49014274576114829078e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.9014 J',25,NULL,'2026-11-28 07:47:03.486000');
INSERT INTO "reports" VALUES(25,1,1,0.1,3.0,1.0,'continue','the target 1 is not reached yet; training goes on',27,NULL,'2026-11-28 07:47:03.495000');
INSERT INTO "reports" VALUES(25,2,1,1.0,1.40305899830335540907e+01,1.0,'converged','metric 1 reached the target 1 at a cost of 14.0306 J',28,NULL,'2026-11-28 07:47:03.499000');
CREATE TABLE secrets (
	name VARCHAR(32) NOT NULL, 
	value VARCHAR(255) NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "secrets" VALUES('session key','iqTmVKEeWtYmS38p9n2leYBuM_8uzvHXX3CUcu7LmszVDyqu9LWFQfYSazMc07ad');
CREATE TABLE tokens (
	id INTEGER NOT NULL, 
	label VARCHAR(255) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	scope VARCHAR(16) NOT NULL, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	revoked_at DATETIME, job_id_prefix VARCHAR(255), 
	PRIMARY KEY (id), 
	UNIQUE (hash)
);
INSERT INTO "tokens" VALUES(1,'trainers','8c3d0d4be6a2189106c6e33079be041fa2769fbe24cd6bdb9198c0181c75db9b','run','2026-11-28 07:47:03.509000',NULL,NULL,'zeus');
CREATE TABLE trials (
	id INTEGER NOT NULL, 
	job INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	run_id VARCHAR(64), 
	exploration INTEGER NOT NULL, 
	batch_size INTEGER NOT NULL, 
	type VARCHAR(16) NOT NULL, 
	reason TEXT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	outcome_code VARCHAR(16), 
	outcome TEXT, 
	converged BOOLEAN, 
	energy_j DOUBLE NOT NULL, 
	time_s DOUBLE NOT NULL, 
	epochs INTEGER NOT NULL, 
	energy_source VARCHAR(16), 
	started_revision BIGINT NOT NULL, 
	ended_revision BIGINT, 
	started_at DATETIME NOT NULL, 
	last_seen_at DATETIME NOT NULL, 
	ended_at DATETIME, bound_factor DOUBLE, accumulate_grad_batches INTEGER DEFAULT '1' NOT NULL, host VARCHAR(255), 
	PRIMARY KEY (id), 
	UNIQUE (job, number), 
	UNIQUE (job, run_id), 
	FOREIGN KEY(job) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "trials" VALUES(1,1,1,'run-0',0,16,'Pruning','pruning round 1 of 2: the round''s default batch size','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.1344 J',1,1.41343642441124011104e+01,1.0,1,NULL,1,3,'2026-11-28 07:47:02.966000','2026-11-28 07:47:03.003000','2026-11-28 07:47:03.003000',1.0,1,NULL);
INSERT INTO "trials" VALUES(2,1,2,'run-1',0,8,'Pruning','pruning round 1 of 2: downwards from 16','Succeeded','converged','metric 1 reached the target 1 at a cost of 12.8474 J',1,1.28474337369372335613e+01,1.0,1,NULL,4,6,'2026-11-28 07:47:03.010000','2026-11-28 07:47:03.026000','2026-11-28 07:47:03.026000',1.0,1,NULL);
INSERT INTO "trials" VALUES(3,1,3,'run-2',0,32,'Pruning','pruning round 1 of 2: upwards from 16','Succeeded','converged','metric 1 reached the target 1 at a cost of 18.7638 J',1,1.87637746189766154714e+01,1.0,1,NULL,7,9,'2026-11-28 07:47:03.032000','2026-11-28 07:47:03.046000','2026-11-28 07:47:03.046000',1.0,1,NULL);
INSERT INTO "trials" VALUES(4,1,4,'run-3',0,8,'Pruning','pruning round 2 of 2: the round''s default batch size','Succeeded','diverged','the metric is not a finite number: the run has diverged; batch size 8 is not given again in this job, unless the job is reset',0,20.0,1.0,1,NULL,10,11,'2026-11-28 07:47:03.052000','2026-11-28 07:47:03.059000','2026-11-28 07:47:03.059000',1.0,1,NULL);
INSERT INTO "trials" VALUES(5,1,5,'run-4',0,16,'Pruning','pruning round 2 of 2: upwards from 8','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.2551 J',1,1.42550690257394219173e+01,1.0,1,NULL,12,14,'2026-11-28 07:47:03.065000','2026-11-28 07:47:03.078000','2026-11-28 07:47:03.078000',1.0,1,NULL);
INSERT INTO "trials" VALUES(6,1,6,'run-5',0,32,'Pruning','pruning round 2 of 2: upwards from 8','Failed','ended','ended by its caller without a result',NULL,0.0,0.0,0,NULL,15,16,'2026-11-28 07:47:03.083000','2026-11-28 07:47:03.090000','2026-11-28 07:47:03.090000',1.0,1,NULL);
INSERT INTO "trials" VALUES(7,1,7,'run-6',0,32,'Pruning','pruning round 2 of 2: upwards from 8','Succeeded','converged','metric 1 reached the target 1 at a cost of 18.4954 J',1,1.84954350870919412841e+01,1.0,1,NULL,17,19,'2026-11-28 07:47:03.095000','2026-11-28 07:47:03.106000','2026-11-28 07:47:03.106000',1.0,1,NULL);
INSERT INTO "trials" VALUES(8,1,8,'run-7',0,16,'MAB','bandit: batch size 16 drew the lowest of 2 sampled costs, 14.182 J (expected 14.1947 J, standard deviation 0.0427 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.4495 J',1,1.44494910647887380155e+01,1.0,1,NULL,20,22,'2026-11-28 07:47:03.111000','2026-11-28 07:47:03.124000','2026-11-28 07:47:03.124000',1.0,1,NULL);
INSERT INTO "trials" VALUES(9,1,9,'run-8',0,16,'MAB','bandit: batch size 16 drew the lowest of 2 sampled costs, 14.3137 J (expected 14.2796 J, standard deviation 0.075 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.6516 J',1,1.46515929727227636192e+01,1.0,1,NULL,23,25,'2026-11-28 07:47:03.129000','2026-11-28 07:47:03.142000','2026-11-28 07:47:03.142000',1.0,1,NULL);
INSERT INTO "trials" VALUES(10,1,10,'run-9',0,16,'MAB','bandit: batch size 16 drew the lowest of 2 sampled costs, 14.241 J (expected 14.3726 J, standard deviation 0.0982 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.7887 J',1,1.47887233511355127286e+01,1.0,1,NULL,26,28,'2026-11-28 07:47:03.147000','2026-11-28 07:47:03.159000','2026-11-28 07:47:03.159000',1.0,1,NULL);
INSERT INTO "trials" VALUES(11,1,11,'run-10',0,16,'MAB','bandit: batch size 16 drew the lowest of 2 sampled costs, 14.4028 J (expected 14.4558 J, standard deviation 0.108 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.0939 J',1,1.40938595867742346712e+01,1.0,1,NULL,29,31,'2026-11-28 07:47:03.164000','2026-11-28 07:47:03.176000','2026-11-28 07:47:03.176000',1.0,1,NULL);
INSERT INTO "trials" VALUES(12,1,12,'run-11',0,16,'MAB','bandit: batch size 16 drew the lowest of 2 sampled costs, 14.4938 J (expected 14.3955 J, standard deviation 0.106 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.0283 J',1,1.40283474765220059765e+01,1.0,1,NULL,32,34,'2026-11-28 07:47:03.181000','2026-11-28 07:47:03.193000','2026-11-28 07:47:03.193000',1.0,1,NULL);
INSERT INTO "trials" VALUES(13,1,13,'run-12',0,16,'MAB','bandit: batch size 16 drew the lowest of 2 sampled costs, 14.4812 J (expected 14.3431 J, standard deviation 0.103 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.8358 J',1,1.48357651039198703557e+01,1.0,1,NULL,35,37,'2026-11-28 07:47:03.199000','2026-11-28 07:47:03.237000','2026-11-28 07:47:03.237000',1.0,1,NULL);
INSERT INTO "trials" VALUES(14,1,14,'run-13',0,16,'MAB','bandit: batch size 16 drew the lowest of 2 sampled costs, 14.5424 J (expected 14.4047 J, standard deviation 0.107 J)','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.4328 J',1,1.44327670679050541475e+01,1.0,1,NULL,38,40,'2026-11-28 07:47:03.253000','2026-11-28 07:47:03.276000','2026-11-28 07:47:03.276000',1.0,1,NULL);
INSERT INTO "trials" VALUES(15,1,15,'running',0,16,'MAB','bandit: batch size 16 drew the lowest of 2 sampled costs, 14.5282 J (expected 14.4078 J, standard deviation 0.095 J)','Dispatched',NULL,NULL,NULL,0.0,0.0,0,NULL,41,NULL,'2026-11-28 07:47:03.301000','2026-11-28 07:47:03.301000',NULL,1.0,1,NULL);
INSERT INTO "trials" VALUES(16,2,1,'run-0',0,16,'MAB','no run has ended yet: the default batch size','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.7623 J',1,1.47622800824579414324e+01,1.0,1,NULL,1,3,'2026-11-28 07:47:03.330000','2026-11-28 07:47:03.348000','2026-11-28 07:47:03.348000',1.0,1,NULL);
INSERT INTO "trials" VALUES(17,2,2,'run-1',0,32,'MAB','not tried yet, next to 16; expected 12.85 J ± 4.03 J; the best so far is 15.17 J at 16','Succeeded','converged','metric 1 reached the target 1 at a cost of 18.0021 J',1,1.80021060533511096934e+01,1.0,1,NULL,4,6,'2026-11-28 07:47:03.355000','2026-11-28 07:47:03.370000','2026-11-28 07:47:03.370000',1.0,1,NULL);
INSERT INTO "trials" VALUES(18,2,3,'run-2',0,8,'MAB','not tried yet, next to 16; expected 11.9 J ± 3.2 J; the best so far is 14.6 J at 16','Succeeded','converged','metric 1 reached the target 1 at a cost of 12.4454 J',1,12.4453871940548,1.0,1,NULL,7,9,'2026-11-28 07:47:03.376000','2026-11-28 07:47:03.390000','2026-11-28 07:47:03.390000',1.0,1,NULL);
INSERT INTO "trials" VALUES(19,2,4,'run-3',0,8,'MAB','the best so far; expected 12.34 J ± 1.61 J','Succeeded','diverged','the metric is not a finite number: the run has diverged; batch size 8 has converged before in this job, so it may be given again',0,20.0,1.0,1,NULL,10,11,'2026-11-28 07:47:03.395000','2026-11-28 07:47:03.403000','2026-11-28 07:47:03.403000',1.0,1,NULL);
INSERT INTO "trials" VALUES(20,2,5,'run-4',0,16,'MAB','the best so far; expected 16.52 J ± 1.5 J','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.7215 J',1,1.47215400323407834552e+01,1.0,1,NULL,12,14,'2026-11-28 07:47:03.409000','2026-11-28 07:47:03.422000','2026-11-28 07:47:03.422000',1.0,1,NULL);
INSERT INTO "trials" VALUES(21,2,6,'run-5',0,16,'MAB','the best so far; expected 15.79 J ± 1.12 J','Failed','ended','ended by its caller without a result',NULL,0.0,0.0,0,NULL,15,16,'2026-11-28 07:47:03.428000','2026-11-28 07:47:03.435000','2026-11-28 07:47:03.435000',1.0,1,NULL);
INSERT INTO "trials" VALUES(22,2,7,'run-6',0,16,'MAB','the best so far; expected 15.79 J ± 1.12 J','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.2288 J',1,1.4228762221270452315e+01,1.0,1,NULL,17,19,'2026-11-28 07:47:03.440000','2026-11-28 07:47:03.453000','2026-11-28 07:47:03.453000',1.0,1,NULL);
INSERT INTO "trials" VALUES(23,2,8,'run-7',0,16,'MAB','the best so far; expected 15.27 J ± 0.891 J','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.9453 J',1,1.49452706955539227351e+01,1.0,1,NULL,20,22,'2026-11-28 07:47:03.458000','2026-11-28 07:47:03.472000','2026-11-28 07:47:03.472000',1.0,1,NULL);
INSERT INTO "trials" VALUES(24,2,9,'run-8',0,16,'MAB','the best so far; expected 15.16 J ± 0.748 J','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.9014 J',1,1.49014274576114829078e+01,1.0,1,NULL,23,25,'2026-11-28 07:47:03.476000','2026-11-28 07:47:03.486000','2026-11-28 07:47:03.486000',1.0,1,NULL);
INSERT INTO "trials" VALUES(25,2,10,'run-9',0,16,'MAB','the best so far; expected 15.09 J ± 0.644 J','Succeeded','converged','metric 1 reached the target 1 at a cost of 14.0306 J',1,1.40305899830335540907e+01,1.0,1,NULL,26,28,'2026-11-28 07:47:03.490000','2026-11-28 07:47:03.499000','2026-11-28 07:47:03.499000',1.0,1,NULL);
INSERT INTO "trials" VALUES(26,2,11,'running',0,16,'MAB','the best so far; expected 14.89 J ± 0.559 J','Dispatched',NULL,NULL,NULL,0.0,0.0,0,NULL,29,NULL,'2026-11-28 07:47:03.503000','2026-11-28 07:47:03.503000',NULL,1.0,1,NULL);
CREATE TABLE users (
	id INTEGER NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	password_hash VARCHAR(255) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	sessions INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	disabled_at DATETIME, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "users" VALUES(1,'ada','scrypt:32768:8:1$PkLlS8gMYcHIGKfI$6dc8fb4501748530bd29d76ae92bd1487f2028f3b82f4919056661e2dfb87cd9793c65ac89389b0e9b5e40451cc4d8b4ba7658e15574820fdfa5c64376bd86e9','admin',0,'2026-11-28 07:47:03.615000',NULL);
CREATE INDEX ix_jobs_created_at ON jobs (created_at);
CREATE INDEX ix_trials_progress ON trials (job, status, exploration, ended_revision, batch_size, epochs);
CREATE INDEX ix_audit_at ON audit (at);
CREATE INDEX ix_audit_actor ON audit (actor);
CREATE INDEX ix_audit_job_id ON audit (job_id);
CREATE INDEX ix_audit_action ON audit (action, at);
CREATE INDEX ix_trials_seen ON trials (status, last_seen_at);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
COMMIT;
